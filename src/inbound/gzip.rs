//! gzip (RFC 1952): unpacks a body that is in memory, up to a limit.
//!
//! The decoder of the data is miniz_oxide; here are the frame around it, the checksums, and the
//! limit, which holds for what comes out: a kilobyte can unpack to a megabyte.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::body::{NoBody, grow};

/// The checksum and the length at the end of each member.
const TRAILER: usize = 8;

const BROKEN: NoBody = NoBody::Packed("its data is broken");
const SHORT: NoBody = NoBody::Packed("it ends too early");

/// Unpacks all members of `packed`, which together become at most `max` bytes.
pub(super) fn unpack(packed: &[u8], max: usize) -> Result<Vec<u8>, NoBody> {
    let mut body = Vec::new();
    let mut filled = 0;
    let mut rest = packed;
    loop {
        rest = header(rest)?;
        let begin = filled;
        rest = inflate(rest, &mut body, &mut filled, max)?;
        let (trailer, behind) = rest.split_at_checked(TRAILER).ok_or(SHORT)?;
        let member = &body[begin..filled];
        // The length is kept modulo 2^32.
        if trailer[..4] != crc32(member).to_le_bytes()
            || trailer[4..] != (member.len() as u32).to_le_bytes()
        {
            return Err(NoBody::Packed("its checksum does not match"));
        }
        if behind.is_empty() {
            body.truncate(filled);
            return Ok(body);
        }
        if !behind.starts_with(&MAGIC) {
            return Err(NoBody::Packed("there is something behind its end"));
        }
        rest = behind;
    }
}

const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What follows the header of a member.
fn header(packed: &[u8]) -> Result<&[u8], NoBody> {
    const DEFLATE: u8 = 8;
    const CHECKSUM: u8 = 1 << 1;
    const EXTRA: u8 = 1 << 2;
    const NAME: u8 = 1 << 3;
    const COMMENT: u8 = 1 << 4;
    const RESERVED: u8 = 0b1110_0000;
    let (fixed, mut rest) = packed.split_at_checked(10).ok_or(SHORT)?;
    let flags = fixed[3];
    if !fixed.starts_with(&MAGIC) || fixed[2] != DEFLATE || flags & RESERVED != 0 {
        return Err(NoBody::Packed("it does not begin as gzip does"));
    }
    if flags & EXTRA != 0 {
        let (length, behind) = rest.split_at_checked(2).ok_or(SHORT)?;
        let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
        rest = behind.get(length..).ok_or(SHORT)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = rest.iter().position(|byte| *byte == 0).ok_or(SHORT)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & CHECKSUM != 0 {
        let length = packed.len() - rest.len();
        let (sum, behind) = rest.split_at_checked(2).ok_or(SHORT)?;
        if sum != &crc32(&packed[..length]).to_le_bytes()[..2] {
            return Err(NoBody::Packed("its checksum does not match"));
        }
        rest = behind;
    }
    Ok(rest)
}

/// Unpacks the data of one member behind the `filled` bytes of `body`. Gives what follows it.
fn inflate<'p>(
    packed: &'p [u8],
    body: &mut Vec<u8>,
    filled: &mut usize,
    max: usize,
) -> Result<&'p [u8], NoBody> {
    // A byte more than is allowed shows that it is too much.
    let most = max.saturating_add(1);
    let begin = *filled;
    // 10 KiB, which a worker's stack need not hold.
    let mut decoder = Box::new(DecompressorOxide::new());
    let mut rest = packed;
    loop {
        let (status, taken, given) = decompress(
            &mut decoder,
            rest,
            // A member knows nothing of the bytes of those before it.
            &mut body[begin..],
            *filled - begin,
            TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
        );
        rest = &rest[taken..];
        *filled += given;
        if *filled > max {
            return Err(NoBody::TooLong);
        }
        match status {
            TINFLStatus::Done => return Ok(rest),
            TINFLStatus::HasMoreOutput => {
                const BEGIN: usize = 16 * 1024;
                let wanted = (body.len() * 2)
                    .max(packed.len().saturating_mul(2))
                    .max(BEGIN);
                grow(body, wanted.min(most).max(*filled + 1))?;
            }
            TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput => {
                return Err(SHORT);
            }
            _ => return Err(BROKEN),
        }
    }
}

/// The checksum of gzip (RFC 1952, section 8).
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            let mut value = at as u32;
            let mut bit = 0;
            while bit < 8 {
                value = (value >> 1) ^ (0xedb8_8320 & (value & 1).wrapping_neg());
                bit += 1;
            }
            table[at] = value;
            at += 1;
        }
        table
    };
    let step = |sum: u32, byte: &u8| (sum >> 8) ^ TABLE[((sum as u8) ^ byte) as usize];
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    /// A member whose data is stored as it is, in blocks, with these flags and fields.
    fn member(flags: u8, fields: &[u8], data: &[u8]) -> Vec<u8> {
        let mut out = vec![0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255];
        out.extend_from_slice(fields);
        let mut blocks = data.chunks(60_000).peekable();
        if blocks.peek().is_none() {
            out.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
        }
        while let Some(block) = blocks.next() {
            out.push(u8::from(blocks.peek().is_none()));
            out.extend_from_slice(&(block.len() as u16).to_le_bytes());
            out.extend_from_slice(&(!(block.len() as u16)).to_le_bytes());
            out.extend_from_slice(block);
        }
        out.extend_from_slice(&crc32(data).to_le_bytes());
        out.extend_from_slice(&(data.len() as u32).to_le_bytes());
        out
    }

    /// `{"a":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}`, as gzip(1) packs it.
    const PACKED: &[u8] = &[
        0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3, 0xab, 0x56, 0x4a, 0x54, 0xb2, 0x52, 0x4a, 0x24, 0x12,
        0x28, 0xd5, 0x02, 0x00, 0xde, 0x9e, 0xd2, 0x15, 0x30, 0, 0, 0,
    ];

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn members_are_unpacked_one_after_the_other_with_whatever_their_headers_hold() {
        let text = format!("{{\"a\":\"{}\"}}", "a".repeat(40));
        assert_eq!(unpack(PACKED, MAX).unwrap(), text.as_bytes());
        let long: Vec<u8> = (0..200_000u32).map(|at| (at % 253) as u8).collect();
        assert_eq!(unpack(&member(0, b"", &long), MAX).unwrap(), long);
        let all = 4 | 8 | 16;
        let fields = b"\x03\0abcname\0comment\0";
        let two = [
            member(all, fields, b"one"),
            member(0, b"", b""),
            PACKED.to_vec(),
        ]
        .concat();
        assert_eq!(unpack(&two, MAX).unwrap(), format!("one{text}").as_bytes());
        // With a checksum of the header itself.
        let sum = crc32(&member(2, b"", b"")[..10]).to_le_bytes();
        assert_eq!(unpack(&member(2, &sum[..2], b"x"), MAX).unwrap(), b"x");
        assert!(unpack(&member(2, b"xx", b"x"), MAX).is_err());
    }

    #[test]
    fn the_limit_is_one_of_what_comes_out() {
        let long = vec![b'x'; 100_000];
        let packed = member(0, b"", &long);
        assert_eq!(unpack(&packed, 100_000).unwrap().len(), 100_000);
        assert_eq!(unpack(&packed, 99_999), Err(NoBody::TooLong));
        let twice = [packed.clone(), packed].concat();
        assert_eq!(unpack(&twice, 199_999), Err(NoBody::TooLong));
        assert_eq!(unpack(PACKED, 47), Err(NoBody::TooLong));
        assert_eq!(unpack(PACKED, 48).unwrap().len(), 48);
    }

    #[test]
    fn whatever_is_cut_or_changed_is_an_error() {
        let packed = [member(8, b"name\0", b"one"), PACKED.to_vec()].concat();
        let first = packed.len() - PACKED.len();
        for cut in 0..packed.len() {
            let got = unpack(&packed[..cut], MAX);
            match cut == first {
                // That is a whole member.
                true => assert_eq!(got.unwrap(), b"one"),
                false => assert!(got.is_err(), "{cut}"),
            }
        }
        let whole = unpack(&packed, MAX).unwrap();
        for at in 0..packed.len() {
            let mut wrong = packed.clone();
            wrong[at] ^= 0x55;
            // Some of the header says nothing of the data: its time, its system, its name.
            if let Ok(got) = unpack(&wrong, MAX) {
                assert_eq!(got, whole, "{at}");
            }
        }
        for garbage in [
            &b"x"[..],
            b"\0\0\0\0",
            b"GET / HTTP/1.1\r\n\r\n",
            &[0x1f, 0x8b],
        ] {
            let got = unpack(&[PACKED, garbage].concat(), MAX);
            assert!(matches!(got, Err(NoBody::Packed(_))), "{garbage:?}");
        }
    }
}
