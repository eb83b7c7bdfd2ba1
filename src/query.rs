//! The query of a URL, as forms and `curl` write it.

/// Names and values in their order, decoded.
pub fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (word(name), word(value))
        })
}

/// In a query a plus is a space.
fn word(text: &str) -> String {
    decode_percent(&text.replace('+', " "))
}

/// Text with its percent-encoding undone. What is not encoded properly stays.
pub fn decode_percent(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let decoded = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match decoded {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_and_broken_one_left() {
        assert_eq!(decode_percent("a%2Fb%20%"), "a/b %");
        assert_eq!(decode_percent("%ff%zz%+1"), "\u{fffd}%zz%+1");
    }

    #[test]
    fn a_query_is_pairs() {
        let read: Vec<_> = pairs("model=a%2Fb&&system=Be+brief%2B&flag").collect();
        let expected = [("model", "a/b"), ("system", "Be brief+"), ("flag", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read, expected);
    }
}
