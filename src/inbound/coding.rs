//! The codings of a request's body (`Content-Encoding`): which there are, and taken off.

use tiny_http::Request;

use super::body::NoBody;
use super::gzip;

/// What answers say that bodies may come in.
pub const ACCEPTED: &str = "gzip";

/// Codings around one body. Nobody needs two; each takes a pass over the data.
const MOST: usize = 2;

/// How often the body was packed. An error if in a way that nobody here can unpack.
pub(super) fn layers(request: &Request) -> Result<usize, NoBody> {
    let headers = request.headers().iter();
    let lists = headers
        .filter(|header| header.field.equiv("Content-Encoding"))
        .map(|header| header.value.as_str());
    count(lists)
}

fn count<'a>(lists: impl Iterator<Item = &'a str>) -> Result<usize, NoBody> {
    let mut layers = 0;
    for name in lists.flat_map(|list| list.split(',')).map(str::trim) {
        // RFC 9110, section 8.4.1.3: both names mean the same.
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            layers += 1;
        } else if !name.is_empty() && !name.eq_ignore_ascii_case("identity") {
            return Err(NoBody::Coding);
        }
    }
    match layers <= MOST {
        true => Ok(layers),
        false => Err(NoBody::Coding),
    }
}

/// Takes so many layers off. Each of them unpacks to at most `max` bytes.
pub(super) fn unpack(mut body: Vec<u8>, layers: usize, max: usize) -> Result<Vec<u8>, NoBody> {
    for _ in 0..layers {
        body = gzip::unpack(&body, max)?;
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codings_of_all_lines_are_counted() {
        for (lists, layers) in [
            (&[][..], 0),
            (&[""], 0),
            (&["identity"], 0),
            (&["GZip"], 1),
            (&["x-gzip"], 1),
            (&["identity, gzip", "identity"], 1),
            (&["gzip, gzip"], 2),
            (&["gzip", ",x-gzip,"], 2),
        ] {
            assert_eq!(count(lists.iter().copied()), Ok(layers), "{lists:?}");
        }
        for lists in [
            &["br"][..],
            &["deflate"],
            &["gzip, zstd"],
            &["gzip;q=1"],
            &["gzip gzip"],
            &["gzip, gzip, gzip"],
            &["gzip", "br"],
        ] {
            assert_eq!(
                count(lists.iter().copied()),
                Err(NoBody::Coding),
                "{lists:?}"
            );
        }
    }
}
