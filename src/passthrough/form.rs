//! Where the model's name stands in a form (`multipart/form-data`).
//!
//! Who reads the form next may read it in another way: take the last of two parts with one name, or
//! know spellings of a name that others do not. So a name that is there twice, or that is spelled in
//! a way that not everybody reads as the same, is refused.

use std::ops::Range;

use crate::dialect::openai::LONGEST_MODEL as LONGEST_NAME;

pub fn boundary(kind: &str) -> Option<&str> {
    let mut parts = kind.split(';').map(str::trim);
    let bare = parts.next()?;
    if !bare.eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let mut values = parts
        .filter_map(|part| part.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"));
    let (_, value) = values.next()?;
    // Of two, each reader has its own.
    let alone = values.next().is_none();
    let value = value.trim();
    let bare = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    let value = bare.unwrap_or(value);
    // RFC 2046, section 5.1.1, less what a reader could split it at.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    let is_good = !value.is_empty() && value.len() <= 70 && value.bytes().all(is_plain);
    (alone && is_good).then_some(value)
}

/// Where the model's name stands, if its part is in `form` to its end. An error says why nobody can
/// be sure of it.
pub fn model(form: &[u8], boundary: &str) -> Result<Option<Range<usize>>, &'static str> {
    let delimiter = format!("--{boundary}");
    let next = format!("\r\n{delimiter}");
    let mut found = None;
    // Some readers take a bare line feed for the end of a line, and would see other parts.
    let bare = format!("\n{delimiter}");
    let mut from = 0;
    while let Some(at) = find(form, bare.as_bytes(), from) {
        if at == 0 || form[at - 1] != b'\r' {
            return Err(DOUBTFUL);
        }
        from = at + bare.len();
    }
    let Some(mut at) = find(form, delimiter.as_bytes(), 0).map(|at| at + delimiter.len()) else {
        return Ok(None);
    };
    // A part: its head, an empty line, its value, and a line end before the next delimiter.
    while let Some(value) = find(form, b"\r\n\r\n", at).map(|at| at + 4) {
        let named = name(&String::from_utf8_lossy(&form[at..value]))?;
        let end = find(form, next.as_bytes(), value);
        if named {
            if found.is_some() {
                return Err("model: is given more than once");
            }
            match end {
                Some(end) if end - value <= LONGEST_NAME => found = Some(value..end),
                None if form.len() - value <= LONGEST_NAME => return Ok(None),
                _ => return Err("model: is longer than any name"),
            }
        }
        let Some(end) = end else { break };
        at = end + next.len();
    }
    Ok(found)
}

const DOUBTFUL: &str = "model: a part of the form does not begin, or is not named, as it should be";

/// Whether the part with this head is the model.
fn name(head: &str) -> Result<bool, &'static str> {
    let mut named = false;
    let mut dispositions = 0;
    // Lines that begin with a space belong to the one before.
    let head = head.replace("\r\n ", " ").replace("\r\n\t", " ");
    if head.replace("\r\n", "").contains(['\r', '\n']) {
        return Err(DOUBTFUL);
    }
    for line in head.split("\r\n") {
        let Some((field, value)) = line.split_once(':') else {
            continue;
        };
        if !field.trim().eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        dispositions += 1;
        let mut names = 0;
        for (key, value) in parameters(value) {
            let key = key.to_ascii_lowercase();
            if key.starts_with("name*") {
                // RFC 7578, section 4.2: it must not be used.
                return Err(DOUBTFUL);
            }
            if key != "name" {
                continue;
            }
            names += 1;
            let bare = value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'));
            let plain = bare.unwrap_or(&value);
            if plain == "model" {
                named = true;
            } else if reads_as_model(plain) {
                return Err(DOUBTFUL);
            }
        }
        if names > 1 {
            return Err(DOUBTFUL);
        }
    }
    match dispositions > 1 {
        true => Err(DOUBTFUL),
        false => Ok(named),
    }
}

/// Whether some reader may take this for `model`: without quotes, escapes, spaces, or capitals.
fn reads_as_model(name: &str) -> bool {
    let decoded = crate::query::decode_percent(name);
    let letters: String = decoded
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    letters.eq_ignore_ascii_case("model")
}

/// The parameters of a header's value, apart at semicolons that are in no quotes.
fn parameters(value: &str) -> Vec<(String, String)> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let (mut quoted, mut escaped) = (false, false);
    for letter in value.chars() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' if !quoted => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(letter);
    }
    parts.push(part);
    let pairs = parts.iter().filter_map(|part| part.split_once('='));
    pairs
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

fn find(text: &[u8], what: &[u8], from: usize) -> Option<usize> {
    let text = text.get(from..)?;
    let found = text.windows(what.len()).position(|window| window == what);
    found.map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(disposition: &str, value: &str) -> String {
        format!("--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n")
    }

    fn of(parts: &[String]) -> Result<Option<String>, &'static str> {
        let form = parts.concat() + "--b--\r\n";
        let place = model(form.as_bytes(), "b")?;
        Ok(place.map(|place| form[place].to_owned()))
    }

    #[test]
    fn a_field_of_a_form_is_found_if_it_is_whole() {
        let form = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\n\
                     name=\"model\"\r\n--b\r\ncontent-disposition: form-data; name=model\r\n\r\nup/whisper-1\r\n--b--\r\n";
        let place = model(form, "b").unwrap().unwrap();
        assert_eq!(&form[place], b"up/whisper-1");
        for cut in 0..form.len() - 9 {
            assert_eq!(model(&form[..cut], "b"), Ok(None), "{cut}");
        }
        let quoted = part("filename=\"a;name=\\\"model\\\";b\"; name=\"file\"", "x");
        assert_eq!(of(&[quoted]), Ok(None));
        assert_eq!(
            boundary("multipart/form-data; boundary=\"x y\""),
            Some("x y")
        );
        assert_eq!(boundary("text/plain; boundary=x"), None);
        assert_eq!(boundary("multipart/form-data; boundary=\"x;y\""), None);
        assert_eq!(boundary("multipart/form-data; boundary=\"x"), None);
        assert_eq!(
            boundary("multipart/form-data; boundary=x; Boundary=y"),
            None
        );
    }

    #[test]
    fn a_model_that_is_there_twice_or_oddly_spelled_is_refused() {
        let good = part("name=\"model\"", "m");
        assert_eq!(of(std::slice::from_ref(&good)), Ok(Some("m".into())));
        for other in [
            part("name=\"model\"", "n"),
            part("name=model", "m"),
            part("Name = \"model\"", "n"),
            part("name*=UTF-8''model", "n"),
            part("name*0=mod; name*1=el", "n"),
            part("name='model'", "n"),
            part("name=\"mod\\el\"", "n"),
            part("name=\"Model\"", "n"),
            part("name=\" model \"", "n"),
            part("name=\"mod%65l\"", "n"),
            part("name=\"model[]\"", "n"),
            part("name=\"x\"; name=\"y\"", "n"),
            part("name=x\r\n ;name=model", "n"),
            part(
                "name=\"x\"\r\nContent-Disposition: form-data; name=\"y\"",
                "n",
            ),
        ] {
            assert!(of(&[good.clone(), other.clone()]).is_err(), "{other}");
            assert!(of(&[other.clone(), good.clone()]).is_err(), "{other}");
        }
        let bare = "--b\nContent-Disposition: form-data; name=\"model\"\n\nn\n--b\n";
        assert!(of(&[good.clone(), bare.to_owned()]).is_err());
        assert!(
            of(&[
                part("name=x\nContent-Disposition: y; name=model", "n"),
                good
            ])
            .is_err()
        );
        let long = part("name=model", &"m".repeat(LONGEST_NAME + 1));
        assert!(of(&[long]).is_err());
    }
}
