//! How many tokens something is, where no upstream has said so.

/// Bytes of text that make a token, as a rule of thumb for English and for JSON.
const BYTES: u64 = 4;

/// From this length on, letters without a space or a quote between them are a file in base64.
const FILE: usize = 1024;

/// What a file in a request is taken for: about that much a picture costs.
const FILE_TOKENS: u64 = 1_000;

/// The tokens of text of so many bytes.
pub fn of_length(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES)
}

/// The tokens of a request's body.
pub fn of_body(body: &[u8]) -> u64 {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte);
    let (mut text, mut files, mut run) = (body.len() as u64, 0u64, 0);
    // A last byte that is none ends the last run.
    for byte in body.iter().copied().chain([b'"']) {
        if is_base64(byte) {
            run += 1;
            continue;
        }
        if run >= FILE {
            text -= run as u64;
            files += 1;
        }
        run = 0;
    }
    of_length(text).saturating_add(files.saturating_mul(FILE_TOKENS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_counts_by_its_length_and_a_file_once() {
        assert_eq!(of_length(0), 0);
        assert_eq!(of_length(5), 2);
        assert_eq!(of_body(b""), 0);
        assert_eq!(of_body(&[b' '; 400]), 100);
        let picture = format!("\"data:image/png;base64,{}\"", "A".repeat(4_000_000));
        assert!((1_000..1_010).contains(&of_body(picture.as_bytes())));
        assert_eq!(of_body(&[b'a'; 1023]), 256);
        assert_eq!(of_body(&[b'a'; 1024]), 1_000);
    }
}
