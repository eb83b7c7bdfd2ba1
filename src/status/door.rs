//! How a browser comes to the page: what it accepts, and the key that its user typed.

/// Whether the value of `Accept` is a browser's.
pub fn wants_page(accept: &str) -> bool {
    accept.contains("text/html")
}

/// The password of HTTP's Basic scheme, which is what browsers ask their users for.
pub fn password(authorization: &str) -> Option<String> {
    let (scheme, coded) = authorization.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(decode(coded.trim())?).ok()?;
    let (_, password) = text.split_once(':')?;
    Some(password.to_owned())
}

/// Base64 with its padding or without.
fn decode(coded: &str) -> Option<Vec<u8>> {
    const LONGEST: usize = 4 * 1024;
    let coded = coded.trim_end_matches('=');
    if coded.len() > LONGEST || coded.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(coded.len());
    let (mut bits, mut count) = (0_u32, 0);
    for byte in coded.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 & 0xff_ffff | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_stands_behind_the_first_colon() {
        for (value, password_) in [
            ("Basic eDpjYWxsZXIta2V5", Some("caller-key")),
            ("basic eDpjYWxsZXIta2V5", Some("caller-key")),
            ("Basic OmE6Yg==", Some("a:b")),
            ("Basic eDo=", Some("")),
            ("Basic eA==", None),
            ("Basic e", None),
            ("Basic e-_:", None),
            ("Basic /w==", None),
            ("Bearer eDpjYWxsZXIta2V5", None),
            ("Basic", None),
            ("", None),
        ] {
            assert_eq!(password(value).as_deref(), password_, "{value}");
        }
    }
}
