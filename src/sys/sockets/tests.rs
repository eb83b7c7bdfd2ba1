use super::search::{RESERVE, RESERVED};
use super::*;
use std::io::{Read, Write};

fn pair() -> (TcpStream, TcpStream, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let far = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (near, _) = listener.accept().unwrap();
    (far, near, port)
}

#[test]
fn a_caller_is_found_by_its_address_and_its_hang_up_is_seen_without_reading() {
    let (mut far, near, port) = pair();
    let callers = callers(port).found;
    let caller = callers
        .iter()
        .find(|caller| caller.peer == far.local_addr().unwrap())
        .unwrap();
    assert_eq!(callers.len(), 1);
    assert!(!caller.is_gone());
    let found = super::caller(port, caller.peer).unwrap();
    assert_eq!(found.peer, caller.peer);
    assert!(super::caller(port, near.local_addr().unwrap()).is_none());
    drop(found);
    far.write_all(b"five!").unwrap();
    let bell = Bell::new().unwrap();
    let mut entries = Vec::new();
    while caller.unread() < 5 {
        wait(
            &bell,
            None,
            [].into_iter(),
            &mut entries,
            Some(Duration::from_millis(1)),
        );
    }
    assert_eq!(caller.facts().unwrap().received, 5);
    drop(far);
    wait(
        &bell,
        None,
        [caller].into_iter(),
        &mut entries,
        Some(Duration::from_secs(5)),
    );
    assert!(entries[0].revents & libc::POLLRDHUP != 0);
    assert!(caller.is_gone());
    assert_eq!(caller.unread(), 5, "nothing was taken from the HTTP server");
    drop(near);
}

#[test]
fn a_reset_ends_a_reader_in_spite_of_what_has_arrived() {
    let (mut far, mut near, port) = pair();
    far.write_all(&[1; 1000]).unwrap();
    let caller = callers(port).found.remove(0);
    while caller.unread() < 1000 {
        std::thread::yield_now();
    }
    caller.reset();
    let read = std::io::Read::read(&mut near, &mut [0; 10]);
    assert!(matches!(read, Err(_) | Ok(0)), "{read:?}");
    let read = std::io::Read::read(&mut far, &mut [0; 10]);
    assert!(matches!(read, Err(_) | Ok(0)), "{read:?}");
}

#[test]
fn a_reset_connection_is_not_among_the_callers() {
    let (far, near, port) = pair();
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set(far.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
    let held = callers(port).found;
    drop(far);
    assert!(held[0].is_gone());
    assert!(callers(port).found.is_empty());
    drop(near);
}

#[test]
fn our_own_end_of_reading_is_no_hang_up() {
    let (far, near, port) = pair();
    near.shutdown(std::net::Shutdown::Read).unwrap();
    let callers = callers(port).found;
    assert!(!callers[0].is_gone());
    drop(far);
}

#[test]
fn a_caller_who_was_told_that_we_are_done_has_left_only_when_it_closes() {
    let (far, near, port) = pair();
    let caller = callers(port).found.remove(0);
    assert!(!caller.has_left() && !caller.facts().unwrap().ending);
    caller.shut_write();
    // The peer's kernel acknowledges it at any time.
    for _ in 0..100 {
        assert!(!caller.has_left() && caller.facts().unwrap().ending);
        std::thread::yield_now();
    }
    drop(far);
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while !caller.has_left() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    drop(near);
}

#[test]
fn a_listener_tells_how_many_wait() {
    use std::os::fd::AsFd;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    prepare_listener(&listener, Duration::from_secs(30)).unwrap();
    assert_eq!(accept_queue(listener.as_fd()), Some(0));
    let _waiting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(accept_queue(listener.as_fd()), Some(1));
    let (accepted, _) = listener.accept().unwrap();
    assert!(accepted.nodelay().unwrap());
    assert_eq!(
        accepted.write_timeout().unwrap(),
        Some(Duration::from_secs(30))
    );
}

#[test]
fn the_bell_ends_a_wait() {
    let bell = Bell::new().unwrap();
    bell.ring();
    wait(&bell, None, [].into_iter(), &mut Vec::new(), None);
    bell.ring();
    bell.ring();
    wait(&bell, None, [].into_iter(), &mut Vec::new(), None);
}

#[test]
fn a_duplicate_from_the_reserve_holds_nothing_open() {
    refill_reserve();
    let (mut far, near, _) = pair();
    let lent = Duplicate::from_reserve(near.as_raw_fd()).unwrap();
    let number = lent.as_raw_fd();
    assert!(address(number, libc::getpeername).is_some());
    drop(near);
    drop(lent);
    // The connection has ended, though the number may still be taken.
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
    assert!(Duplicate::from_reserve(-1).is_none());
    assert!(RESERVE.lock().len() <= RESERVED);
}
