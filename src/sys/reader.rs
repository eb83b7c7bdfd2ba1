//! Changes what the HTTP server's reader expects of a body that nobody will read.
//!
//! When a request is dropped, its reader drains what is left of the declared length, for which there
//! must be memory. A request that is never dropped costs a thread that waits for the reader to come
//! back. There is no way to tell the reader that nothing more comes, so the number it keeps is found
//! by its value and changed.

use std::mem::{self, MaybeUninit};

use tiny_http::Request;

/// What the HTTP server keeps the reader of a body in, and what `Request::as_reader` gives out as a
/// reader of any kind. That is no part of its interface, so its version is held exactly.
type Kept = Box<dyn std::io::Read + Send>;

/// Lets the reader of `request`, which still expects `expected` bytes of its body, expect `wanted`
/// ones instead. False if its number was not found for sure; then nothing is changed.
///
/// Behind what it expects, the next request begins: so the connection must have ended, or the
/// number must become the right one before all of it has come.
pub fn shorten(request: &mut Request, expected: usize, wanted: usize) -> bool {
    let reader = request.as_reader();
    if mem::size_of_val(reader) != mem::size_of::<Kept>() {
        return false;
    }
    // SAFETY: in this version `as_reader` borrows the box itself; the size would tell of most
    // changes. It is ours alone for as long as the request is borrowed.
    let kept = unsafe { &mut *std::ptr::from_mut(reader).cast::<Kept>() };
    // SAFETY: the only number in a reader's keeping that has this value counts what it expects, for
    // which any other will do. An address of memory may be equal by chance, but beside it.
    unsafe { replace(&mut **kept, expected, wanted) }
}

/// Replaces the word of `object` that holds `old`. False if there is none, or more than one.
///
/// # Safety
/// If there is one alone, it must be a number, for which `new` is as good a value.
unsafe fn replace<T: ?Sized>(object: &mut T, old: usize, new: usize) -> bool {
    if mem::align_of_val(object) < mem::align_of::<usize>() {
        return false;
    }
    let length = mem::size_of_val(object) / mem::size_of::<usize>();
    let words = std::ptr::from_mut(object).cast::<MaybeUninit<usize>>();
    let mut found = None;
    for at in 0..length {
        // SAFETY: it lies within the object, which is borrowed for as long. A word of padding has no
        // value that Rust could look at, so libc does.
        let difference = unsafe {
            libc::memcmp(
                words.add(at).cast(),
                (&raw const old).cast(),
                size_of::<usize>(),
            )
        };
        if difference == 0 && found.replace(at).is_some() {
            return false;
        }
    }
    let Some(at) = found else { return false };
    // SAFETY: as above, and the caller vouches for the value.
    unsafe { words.add(at).write_volatile(MaybeUninit::new(new)) };
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpStream;
    use tiny_http::Server;

    #[test]
    fn a_reader_of_megabytes_is_content_with_a_few_bytes() {
        let server = Server::http("127.0.0.1:0").unwrap();
        let address = server.server_addr().to_ip().unwrap();
        for length in [1_000_003, 70_000_001] {
            let mut caller = TcpStream::connect(address).unwrap();
            write!(
                caller,
                "POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n123456GET /next HTTP/1.1\r\n\r\n"
            )
            .unwrap();
            let mut request = server.recv().unwrap();
            assert!(!shorten(&mut request, length - 1, 6));
            request.as_reader().read_exact(&mut [0; 2]).unwrap();
            assert!(!shorten(&mut request, length, 4));
            assert!(shorten(&mut request, length - 2, 4));
            assert!(!shorten(&mut request, length - 2, 4));
            let mut body = String::new();
            request.as_reader().read_to_string(&mut body).unwrap();
            assert_eq!(body, "3456");
            drop(request);
            // Its thread goes on, with what was no body any more.
            assert_eq!(server.recv().unwrap().url(), "/next");
        }
    }

    #[test]
    fn nothing_is_changed_where_two_words_fit() {
        let mut words = [7usize, 1 << 40, 3];
        // SAFETY: all are numbers.
        unsafe {
            assert!(replace(&mut words, 1 << 40, 7));
            assert!(!replace(&mut words, 7, 9));
            assert!(!replace(&mut words, 1, 9));
        }
        assert_eq!(words, [7, 7, 3]);
    }
}
