//! Content parts -> content blocks.

use super::block::{Block, Kind, Mark, Media};
use crate::chat::{Part, PartKind};
use crate::error::ApiError;

/// Text that the provider would refuse: nothing but white space.
pub fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// The block of one part, or `None` where the part says nothing. `path` names it in an error.
pub fn block<'r>(
    part: &'r Part<'r>,
    path: impl Fn() -> String,
) -> Result<Option<Block<'r>>, ApiError> {
    let refuse = |message: &str| Err(ApiError::unsupported_value(path(), message));
    let media = match &part.kind {
        PartKind::Text(text) | PartKind::Refusal(text) => {
            return Ok((!is_blank(text)).then(|| Block {
                kind: Kind::Text(text.as_ref().into()),
                mark: Mark::of(part.cache_control, part.cache_breakpoint),
            }));
        }
        PartKind::Audio { .. } => return refuse("audio input is not supported by this model"),
        PartKind::Image { url, .. } => image(url),
        PartKind::File { data, id, name } => file(
            data.as_deref().filter(|data| !data.is_empty()),
            id.as_deref(),
            name.as_deref().filter(|name| !name.is_empty()),
        ),
    };
    match media {
        Ok(media) => Ok(Some(Block {
            kind: Kind::Media(media),
            mark: Mark::of(part.cache_control, part.cache_breakpoint),
        })),
        Err(message) => refuse(message),
    }
}

fn image(url: &str) -> Result<Media<'_>, &'static str> {
    if let Some((mime, base64)) = data_url(url) {
        return image_data(&mime, base64?);
    }
    let is_remote = ["https://", "http://"].iter().any(|scheme| {
        url.get(..scheme.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(scheme))
    });
    if is_remote {
        Ok(Media::ImageUrl(url))
    } else {
        Err("an image must be a data URL or an http(s) URL")
    }
}

/// What is in the file counts more than what its label says: the provider compares them.
fn image_data<'r>(mime: &str, base64: &'r str) -> Result<Media<'r>, &'static str> {
    let labelled = match mime {
        "image/jpeg" | "image/jpg" => Some("image/jpeg"),
        "image/png" => Some("image/png"),
        "image/gif" => Some("image/gif"),
        "image/webp" => Some("image/webp"),
        _ => None,
    };
    let mime = magic(base64)
        .or(labelled)
        .ok_or("images must be jpeg, png, gif or webp")?;
    Ok(Media::Image { mime, base64 })
}

fn file<'r>(
    data: Option<&'r str>,
    id: Option<&'r str>,
    title: Option<&'r str>,
) -> Result<Media<'r>, &'static str> {
    let Some(data) = data else {
        return match id {
            Some(id) if id.starts_with("file_") => Ok(Media::FileId { id, title }),
            _ => Err("only file ids of this provider (file_...) can be sent to it"),
        };
    };
    let (mime, base64) = match data_url(data) {
        Some((mime, base64)) => (mime, base64?),
        None => (String::new(), data),
    };
    // `%PDF-` in base64.
    if base64.starts_with("JVBERi") {
        return Ok(Media::Pdf { base64, title });
    }
    let mime = match mime.as_str() {
        "" | "application/octet-stream" => mime_of_name(title.unwrap_or_default()),
        mime => mime,
    };
    match mime {
        "application/pdf" => Ok(Media::Pdf { base64, title }),
        _ if mime.starts_with("image/") || magic(base64).is_some() => image_data(mime, base64),
        "application/json" | "application/markdown" | "application/csv" => plain(base64, title),
        _ if mime.starts_with("text/") => plain(base64, title),
        _ => Err("files must be PDF, plain text, JSON, Markdown, CSV or an image"),
    }
}

fn plain<'r>(base64: &str, title: Option<&'r str>) -> Result<Media<'r>, &'static str> {
    let bytes = decode(base64).ok_or("the file's base64 is broken")?;
    let text = String::from_utf8(bytes).map_err(|_| "a text file must be UTF-8")?;
    Ok(Media::PlainText { text, title })
}

/// For bare base64, whose only label is its file name.
fn mime_of_name(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension.to_ascii_lowercase().as_str() {
        "pdf" => "application/pdf",
        "txt" | "text" | "log" => "text/plain",
        "md" | "markdown" => "text/markdown",
        "csv" => "text/csv",
        "json" => "application/json",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "webp" => "image/webp",
        _ => "",
    }
}

/// Media type (lower case, without parameters) and base64 data of a `data:` URL.
#[allow(clippy::type_complexity)]
fn data_url(url: &str) -> Option<(String, Result<&str, &'static str>)> {
    let head = url.get(..5)?;
    if !head.eq_ignore_ascii_case("data:") {
        return None;
    }
    let Some((label, data)) = url[5..].split_once(',') else {
        return Some((String::new(), Err("the data URL has no data")));
    };
    let mut words = label.split(';').map(str::trim);
    let mime = words.next().unwrap_or_default().to_ascii_lowercase();
    if words.any(|word| word.eq_ignore_ascii_case("base64")) {
        Some((mime, Ok(data)))
    } else {
        Some((mime, Err("data URLs must be base64")))
    }
}

/// The image format that the first bytes tell.
fn magic(base64: &str) -> Option<&'static str> {
    let head = decode(base64.get(..16)?)?;
    match head.as_slice() {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xFF, 0xD8, 0xFF, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => Some("image/webp"),
        _ => None,
    }
}

/// Base64 in its plain or its URL alphabet, white space and padding left out.
fn decode(base64: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(base64.len() / 4 * 3 + 3);
    let (mut bits, mut held, mut ended) = (0_u32, 0_u32, false);
    for byte in base64.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => {
                ended = true;
                continue;
            }
            _ if byte.is_ascii_whitespace() => continue,
            _ => return None,
        };
        if ended {
            return None;
        }
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    // A single character left over is no byte.
    (held < 6).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &str = "iVBORw0KGgoAAAANSUhEUg==";

    fn image_mime(url: &str) -> Result<&'static str, &'static str> {
        match image(url)? {
            Media::Image { mime, .. } => Ok(mime),
            _ => Ok("url"),
        }
    }

    #[test]
    fn images_are_named_by_what_they_are() {
        assert_eq!(
            image_mime(&format!("data:image/png;base64,{PNG}")),
            Ok("image/png")
        );
        assert_eq!(
            image_mime(&format!("data:image/jpeg;base64,{PNG}")),
            Ok("image/png")
        );
        assert_eq!(
            image_mime(&format!("DATA:;x=y;BASE64,{PNG}")),
            Ok("image/png")
        );
        assert_eq!(image_mime("data:image/jpg;base64,AAAA"), Ok("image/jpeg"));
        assert_eq!(
            image_mime("data:image/x;base64,UklGRiQAAABXRUJQVlA4"),
            Ok("image/webp")
        );
        assert_eq!(
            image_mime("data:image/x;base64,R0lGODlhAQABAAAA"),
            Ok("image/gif")
        );
        assert_eq!(
            image_mime("data:image/x;base64,/9j/4AAQSkZJRgAB"),
            Ok("image/jpeg")
        );
        assert_eq!(image_mime("https://x.example/a.png"), Ok("url"));
        assert_eq!(image_mime("HTTP://x.example/a.png"), Ok("url"));
        for url in [
            "data:image/bmp;base64,Qk1GAAAAAAAAAAAA",
            "data:image/png,abc",
            "data:image/png;base64",
            "gs://bucket/x",
            "\u{fc}\u{fc}\u{fc}",
            "",
        ] {
            assert!(image_mime(url).is_err(), "{url}");
        }
    }

    #[test]
    fn files_by_label_by_content_and_by_name() {
        let kind = |data: &str, name: &str| match file(Some(data), None, Some(name)) {
            Ok(Media::Pdf { .. }) => "pdf".to_owned(),
            Ok(Media::PlainText { text, .. }) => text,
            Ok(Media::Image { mime, .. }) => mime.to_owned(),
            Ok(other) => format!("{other:?}"),
            Err(message) => message.to_owned(),
        };
        assert_eq!(kind("JVBERi0xLjQK", "x"), "pdf");
        assert_eq!(kind("data:application/pdf;base64,JVBERi0xLjQK", "x"), "pdf");
        assert_eq!(kind("data:application/pdf;base64,AAAA", "x"), "pdf");
        assert_eq!(kind("data:text/csv;charset=utf-8;base64,YSxi", "x"), "a,b");
        assert_eq!(kind("data:application/json;base64,e30=", "x"), "{}");
        assert_eq!(kind("aGFsbG8=", "a.md"), "hallo");
        assert_eq!(kind(PNG, ""), "image/png");
        assert_eq!(
            kind("data:text/plain;base64,/w==", "x"),
            "a text file must be UTF-8"
        );
        assert_eq!(
            kind("data:text/plain;base64,a*b", "x"),
            "the file's base64 is broken"
        );
        assert!(kind("AAAA", "a.zip").starts_with("files must be"));
        assert!(file(None, Some("file-abc"), None).is_err());
        assert!(matches!(
            file(None, Some("file_011"), None),
            Ok(Media::FileId { id: "file_011", .. })
        ));
    }

    #[test]
    fn base64_of_every_length() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("YQ==", b"a"),
            ("YWI", b"ab"),
            ("YWJj", b"abc"),
            ("-_-_", &[0xFB, 0xFF, 0xBF]),
            ("YW\nJj", b"abc"),
        ] {
            assert_eq!(decode(text).as_deref(), Some(bytes), "{text}");
        }
        assert!(decode("Y").is_none() && decode("YQ==YQ").is_none());
    }

    #[test]
    fn blank_text_is_no_block_and_audio_is_refused() {
        assert!(block(&Part::text(" \n\t"), String::new).unwrap().is_none());
        let part = Part {
            kind: PartKind::Audio {
                data: "".into(),
                format: "wav".into(),
            },
            cache_control: None,
            cache_breakpoint: None,
            google_signature: None,
        };
        let error = block(&part, || "messages[0].content[1]".into()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("messages[0].content[1]"));
        assert_eq!(error.code.as_deref(), Some("unsupported_value"));
    }
}
