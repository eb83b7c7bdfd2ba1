//! What a request shows beside text: images, files and sounds, as parts of a chat request.

use crate::dialect::openai::read::{Object, is_object, string};
use crate::error::ApiError;
use crate::json::{push_key, push_string};

/// A picture that the model made itself. Its format is told by how it begins.
pub fn picture(base64: &str) -> Vec<u8> {
    let mime = match base64 {
        _ if base64.starts_with("/9j/") => "image/jpeg",
        _ if base64.starts_with("UklGR") => "image/webp",
        _ => "image/png",
    };
    let mut out = Vec::with_capacity(base64.len() + 96);
    out.extend_from_slice(b"{\"type\":\"image_url\",\"image_url\":{\"url\":");
    push_string(&mut out, &format!("data:{mime};base64,{base64}"));
    out.extend_from_slice(b"}}");
    out
}

/// An image, a file or a sound, as others take it. `None`: it lies with the caller's own provider.
pub fn media(kind: &str, part: &Object<'_, '_>) -> Result<Option<Vec<u8>>, ApiError> {
    let mut out = Vec::new();
    match kind {
        "input_image" => {
            let path = part.path.key("image_url");
            let url = match part.get("image_url") {
                Some(raw) if is_object(raw) => Object::read(raw, &path)?.required_string("url")?,
                Some(raw) => string(raw, &path)?,
                None if part.get("file_id").is_some() => return Ok(None),
                None => return Err(path.invalid("is required")),
            };
            out.reserve(url.len() + 64);
            out.extend_from_slice(b"{\"type\":\"image_url\",\"image_url\":{\"url\":");
            push_string(&mut out, &url);
            // The others are not known to chat completions.
            if let Some(detail) = part.string("detail")?
                && matches!(&*detail, "low" | "high" | "auto")
            {
                push_key(&mut out, b',', "detail");
                push_string(&mut out, &detail);
            }
            out.extend_from_slice(b"}}");
        }
        "input_file" => {
            let Some(data) = part.string("file_data")? else {
                return Ok(None);
            };
            out.reserve(data.len() + 96);
            out.extend_from_slice(b"{\"type\":\"file\",\"file\":{\"filename\":");
            let name = part.string("filename")?;
            let name = name.filter(|name| !name.is_empty());
            push_string(&mut out, name.as_deref().unwrap_or("document.pdf"));
            push_key(&mut out, b',', "file_data");
            push_string(&mut out, &data);
            out.extend_from_slice(b"}}");
        }
        "input_audio" => {
            let path = part.path.key("input_audio");
            let Some(raw) = part.get("input_audio") else {
                return Err(path.invalid("is required"));
            };
            let audio = Object::read(raw, &path)?;
            out.extend_from_slice(b"{\"type\":\"input_audio\",\"input_audio\":{\"data\":");
            push_string(&mut out, &audio.required_string("data")?);
            push_key(&mut out, b',', "format");
            push_string(&mut out, &audio.required_string("format")?);
            out.extend_from_slice(b"}}");
        }
        _ => return Ok(None),
    }
    Ok(Some(out))
}
