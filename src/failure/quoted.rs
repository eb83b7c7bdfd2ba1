//! What an upstream quotes in an error: values of the request, which say nothing of a key.

/// `words` without what stands in quotes, which may be the caller's. `to_last`: up to the last
/// quote of a kind, since a value may hold quotes itself.
pub fn without_quoted(words: &str, to_last: bool) -> String {
    let mut out = String::with_capacity(words.len());
    let mut rest = words;
    while let Some(at) = rest.find(['\'', '"', '`', '“', '‘']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let Some(quote) = from.chars().next() else {
            break;
        };
        let inside = &from[quote.len_utf8()..];
        let close = match quote {
            '“' => '”',
            '‘' => '’',
            other => other,
        };
        let end = match opens(before) {
            false => None,
            true => ending(inside, close, to_last),
        };
        rest = match end {
            Some(end) => &inside[end..],
            // An apostrophe.
            None => {
                out.push(quote);
                inside
            }
        };
    }
    out.push_str(rest);
    out
}

/// A quote behind a letter is an apostrophe.
fn opens(before: &str) -> bool {
    !before
        .chars()
        .next_back()
        .is_some_and(char::is_alphanumeric)
}

/// Where the rest begins, behind the quote that closes.
fn ending(inside: &str, close: char, to_last: bool) -> Option<usize> {
    let closes = |&(at, _): &(usize, &str)| {
        let behind = inside[at + close.len_utf8()..].chars().next();
        !inside[..at].ends_with('\\') && !behind.is_some_and(char::is_alphanumeric)
    };
    let found = match to_last {
        true => inside.rmatch_indices(close).find(closes),
        false => inside.match_indices(close).find(closes),
    };
    found.map(|(at, _)| at + close.len_utf8())
}
