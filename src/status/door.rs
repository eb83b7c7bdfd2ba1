//! How a browser comes to the page: what it accepts, and the key that its user typed.

use crate::base64;

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
    match coded.len() > LONGEST {
        true => None,
        false => base64::read(coded),
    }
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
