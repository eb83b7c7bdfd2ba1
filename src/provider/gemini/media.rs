//! Content parts that are not text: images, audio and files, inline or by address.

use super::audio;
use super::write::Nest;
use crate::capability::Gemini;
use crate::chat::{Part, PartKind};
use crate::error::ApiError;

/// Where files uploaded to the vendor live.
const FILES: &str = "https://generativelanguage.googleapis.com/v1beta/files/";

/// Media types by file name ending.
const BY_ENDING: &[(&str, &str)] = &[
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("png", "image/png"),
    ("webp", "image/webp"),
    ("gif", "image/gif"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("avif", "image/avif"),
    ("bmp", "image/bmp"),
    ("pdf", "application/pdf"),
    ("json", "application/json"),
    ("txt", "text/plain"),
    ("md", "text/markdown"),
    ("markdown", "text/markdown"),
    ("csv", "text/csv"),
    ("html", "text/html"),
    ("htm", "text/html"),
    ("css", "text/css"),
    ("xml", "text/xml"),
    ("js", "text/javascript"),
    ("py", "text/x-python"),
    ("rtf", "text/rtf"),
    ("wav", "audio/wav"),
    ("mp3", "audio/mpeg"),
    ("flac", "audio/flac"),
    ("aac", "audio/aac"),
    ("ogg", "audio/ogg"),
    ("m4a", "audio/mp4"),
    ("aiff", "audio/aiff"),
    ("mp4", "video/mp4"),
    ("mov", "video/quicktime"),
    ("webm", "video/webm"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
    ("avi", "video/x-msvideo"),
    ("wmv", "video/wmv"),
    ("3gp", "video/3gpp"),
];

/// A media part as Gemini takes it: its type and its bytes or address.
pub struct Media<'a> {
    mime: String,
    source: Source<'a>,
    resolution: Option<&'static str>,
}

enum Source<'a> {
    Inline(&'a str),
    Address(String),
}

impl<'a> Media<'a> {
    /// Reads a part; `None` where it is text. `at` is its path, for errors.
    pub fn read(
        part: &'a Part<'_>,
        model: &Gemini,
        at: &dyn Fn() -> String,
    ) -> Result<Option<Media<'a>>, ApiError> {
        match &part.kind {
            PartKind::Text(_) | PartKind::Refusal(_) => Ok(None),
            PartKind::Image { url, detail } => {
                let mut media = image(url, model, at)?;
                if model.third {
                    media.resolution = match detail.as_deref() {
                        Some("low") => Some("MEDIA_RESOLUTION_LOW"),
                        Some("high") => Some("MEDIA_RESOLUTION_HIGH"),
                        _ => None,
                    };
                }
                Ok(Some(media))
            }
            PartKind::Audio { data, format } => {
                let mime = match &**format {
                    "wav" => "audio/wav",
                    "mp3" => "audio/mpeg",
                    "flac" => "audio/flac",
                    "aac" => "audio/aac",
                    "ogg" | "opus" => "audio/ogg",
                    "aiff" => "audio/aiff",
                    other => {
                        return Err(ApiError::unsupported_value(
                            at() + ".input_audio.format",
                            format!("audio in format {other:?} is not supported"),
                        ));
                    }
                };
                // Some clients send a data URL where bare base64 belongs.
                let data = data_url(data).map_or(&**data, |(_, data)| data);
                Ok(Some(inline(mime, data)))
            }
            PartKind::File {
                data: Some(data),
                name,
                ..
            } => file(data, name.as_deref(), model, at).map(Some),
            PartKind::File { id, name, .. } => {
                let id = id.as_deref().unwrap_or_default();
                let address = match id.strip_prefix("files/") {
                    Some(name) => format!("{FILES}{name}"),
                    None if is_uploaded(id) => id.to_owned(),
                    None => {
                        return Err(ApiError::unsupported_value(
                            at() + ".file.file_id",
                            format!("{id:?} is not a file of Gemini's Files API"),
                        ));
                    }
                };
                // The service knows the type of its own files.
                let mime = name.as_deref().and_then(by_ending).unwrap_or_default();
                Ok(Some(Media {
                    mime: mime.to_owned(),
                    source: Source::Address(address),
                    resolution: None,
                }))
            }
        }
    }

    /// Writes the part. `resolution` is not known inside a function response.
    pub fn write(&self, out: &mut Vec<u8>, resolution: bool) {
        self.write_signed(out, resolution, None);
    }

    /// Writes the part with the signature that the model gave it.
    pub fn write_signed(&self, out: &mut Vec<u8>, resolution: bool, signature: Option<&str>) {
        let mut part = Nest::object(out);
        match &self.source {
            Source::Inline(data) => {
                let mut blob = Nest::object(part.key("inlineData"));
                blob.string("mimeType", &self.mime);
                blob.string("data", data);
                blob.end();
            }
            Source::Address(address) => {
                let mut file = Nest::object(part.key("fileData"));
                file.string("fileUri", address);
                if !self.mime.is_empty() {
                    file.string("mimeType", &self.mime);
                }
                file.end();
            }
        }
        if let Some(level) = self.resolution.filter(|_| resolution) {
            let mut wish = Nest::object(part.key("mediaResolution"));
            wish.string("level", level);
            wish.end();
        }
        if let Some(signature) = signature {
            part.string("thoughtSignature", signature);
        }
        part.end();
    }
}

fn inline<'a>(mime: &str, data: &'a str) -> Media<'a> {
    let mime = match mime {
        "image/jpg" => "image/jpeg".to_owned(),
        mime => mime.to_ascii_lowercase(),
    };
    Media {
        mime,
        source: Source::Inline(data),
        resolution: None,
    }
}

fn image<'a>(url: &'a str, model: &Gemini, at: &dyn Fn() -> String) -> Result<Media<'a>, ApiError> {
    let param = || at() + ".image_url.url";
    if let Some((mime, data)) = data_url(url) {
        let mime = if is_vague(mime) {
            by_magic(data)
        } else {
            Some(mime)
        };
        let mime = mime.ok_or_else(|| {
            ApiError::unsupported_value(param(), "the media type of the image is not known")
        })?;
        return Ok(inline(mime, data));
    }
    if is_remote(url) {
        return remote(url, "image/jpeg", model, param);
    }
    Err(ApiError::unsupported_value(
        param(),
        "an image must be a base64 data URL or an http(s) URL",
    ))
}

fn file<'a>(
    data: &'a str,
    name: Option<&str>,
    model: &Gemini,
    at: &dyn Fn() -> String,
) -> Result<Media<'a>, ApiError> {
    let param = || at() + ".file.file_data";
    if is_remote(data) {
        let fallback = name.and_then(by_ending).unwrap_or("application/pdf");
        return remote(data, fallback, model, param);
    }
    let (label, data) = match data_url(data) {
        Some((mime, data)) => (mime, data),
        None if data.starts_with("data:") => {
            return Err(ApiError::unsupported_value(
                param(),
                "a data URL must be in base64",
            ));
        }
        None => ("", data),
    };
    let known = Some(label).filter(|mime| !is_vague(mime));
    let mime = known
        .or_else(|| name.and_then(by_ending))
        .or_else(|| by_magic(data));
    match mime {
        Some(mime) => Ok(inline(mime, data)),
        None => Err(ApiError::unsupported_value(
            param(),
            "the media type of the file is not known; give a data URL or a file name",
        )),
    }
}

/// Media that the service fetches itself.
fn remote<'a>(
    url: &str,
    fallback: &str,
    model: &Gemini,
    param: impl Fn() -> String,
) -> Result<Media<'a>, ApiError> {
    let uploaded = is_uploaded(url);
    if !model.since_2_5 && !uploaded {
        return Err(ApiError::unsupported_value(
            param(),
            "this model does not fetch URLs, and weir fetches images only if its config says \
             fetch_images; send the data inline as a data URL",
        ));
    }
    // The service knows the type of its own files.
    let fallback = if uploaded { "" } else { fallback };
    let path = url.split(['?', '#']).next().unwrap_or_default();
    Ok(Media {
        mime: by_ending(path).unwrap_or(fallback).to_owned(),
        source: Source::Address(url.to_owned()),
        resolution: None,
    })
}

fn is_remote(url: &str) -> bool {
    let starts = |scheme: &str| {
        url.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    starts("https://") || starts("http://")
}

pub fn is_uploaded(url: &str) -> bool {
    url.starts_with("https://") && url.contains("/files/") && url.contains("googleapis.com/")
}

/// The type and the data of a base64 data URL.
fn data_url(url: &str) -> Option<(&str, &str)> {
    let start = url.get(..5)?;
    if !start.eq_ignore_ascii_case("data:") {
        return None;
    }
    let (head, data) = url[5..].split_once(',')?;
    let (head, encoding) = head.rsplit_once(';')?;
    if !encoding.trim().eq_ignore_ascii_case("base64") {
        return None;
    }
    Some((head.split(';').next().unwrap_or_default().trim(), data))
}

/// A label that says nothing.
fn is_vague(mime: &str) -> bool {
    mime.is_empty() || mime == "application/octet-stream"
}

fn by_ending(name: &str) -> Option<&'static str> {
    let (_, ending) = name.rsplit_once('.')?;
    BY_ENDING
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(ending))
        .map(|(_, mime)| *mime)
}

/// The type that the first bytes show.
fn by_magic(base64: &str) -> Option<&'static str> {
    let head = first_bytes(base64);
    let at = |offset: usize, bytes: &[u8]| head.get(offset..).is_some_and(|h| h.starts_with(bytes));
    const STARTS: &[(&[u8], &str)] = &[
        (b"%PDF-", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"fLaC", "audio/flac"),
        (b"OggS", "audio/ogg"),
        (b"ID3", "audio/mpeg"),
    ];
    if let Some((_, mime)) = STARTS.iter().find(|(start, _)| at(0, start)) {
        return Some(mime);
    }
    match () {
        () if at(0, b"RIFF") && at(8, b"WEBP") => Some("image/webp"),
        () if at(0, b"RIFF") && at(8, b"WAVE") => Some("audio/wav"),
        () if at(4, b"ftyphei") => Some("image/heic"),
        () if at(4, b"ftypqt") => Some("video/quicktime"),
        () if at(4, b"ftyp") => Some("video/mp4"),
        () => None,
    }
}

/// The bytes that the first sixteen letters of base64 stand for.
fn first_bytes(base64: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12);
    let head = base64.get(..16).unwrap_or(base64);
    audio::decode(head, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_bytes_name_the_type() {
        for (base64, mime) in [
            ("JVBERi0xLjQK", Some("application/pdf")),
            ("iVBORw0KGgoAAAANSUhEUg", Some("image/png")),
            ("/9j/4AAQSkZJRg", Some("image/jpeg")),
            ("_9j_4AAQSkZJRg", Some("image/jpeg")),
            ("R0lGODlhAQABAIAAAAAA", Some("image/gif")),
            ("UklGRiQAAABXRUJQVlA4", Some("image/webp")),
            ("UklGRiQAAABXQVZFZm10", Some("audio/wav")),
            ("AAAAIGZ0eXBpc29tAAAC", Some("video/mp4")),
            ("SUQzBAAAAAAA", Some("audio/mpeg")),
            ("aGVsbG8=", None),
            ("", None),
        ] {
            assert_eq!(by_magic(base64), mime, "{base64}");
        }
    }

    #[test]
    fn data_urls_are_taken_apart() {
        assert_eq!(
            data_url("data:image/png;base64,AA"),
            Some(("image/png", "AA"))
        );
        assert_eq!(
            data_url("DATA:text/plain;charset=utf-8;BASE64,AA"),
            Some(("text/plain", "AA"))
        );
        assert_eq!(data_url("data:;base64,AA"), Some(("", "AA")));
        for wrong in [
            "data:text/plain,x",
            "data:image/png;base64",
            "http://x",
            "dat\u{e4}:;base64,",
            "",
        ] {
            assert_eq!(data_url(wrong), None, "{wrong}");
        }
    }
}
