//! The two parts that the HTTP client asks before it sends: where to, and a connection to there.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout};

use super::attempt::{self, Phase, Trouble};
use super::connect::{self, Timed};
use super::host_and_port;
use super::proxy::{self, Proxies, Proxy};
use super::public;
use super::resolve::Names;
use super::tls;
use super::transport::{Detour, Wire};

/// Both parts are one: they have to agree on the proxy.
#[derive(Clone)]
pub struct Dialer {
    pub names: Arc<Names>,
    pub proxies: Arc<Proxies>,
    pub tls: Arc<ClientConfig>,
    pub reach: Reach,
}

/// Which addresses may be connected to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those of an upstream, which the config names.
    All,
    /// Those of a name that came from a caller: only hosts that everyone can reach anyway.
    Public,
    /// As if this address were public, for tests on loopback.
    #[cfg(test)]
    PublicAnd(SocketAddr),
}

impl Reach {
    fn allows(self, addr: &SocketAddr) -> bool {
        match self {
            Reach::All => true,
            Reach::Public => public::is_public(addr.ip()),
            #[cfg(test)]
            Reach::PublicAnd(other) => *addr == other || public::is_public(addr.ip()),
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

/// The client knows nothing of proxies: where one leads to the upstream, its addresses are given
/// for the upstream's.
impl Resolver for Dialer {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        attempt::enter(Phase::Resolve);
        let (host, port) = match self.proxies.to(uri) {
            Some(proxy) => (proxy.host.as_str(), proxy.port),
            None => host_and_port(uri).ok_or_else(|| Trouble::new("the URL has no host"))?,
        };
        let mut addrs = self.empty();
        // The list that the client carries has room for 16.
        for addr in self
            .names
            .look_up(host, port, connect_by())?
            .into_iter()
            .take(16)
        {
            addrs.push(addr);
        }
        Ok(addrs)
    }
}

impl Connector for Dialer {
    type Out = Wire;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Wire>, Error> {
        let by = connect_by();
        let (host, port) =
            host_and_port(details.uri).ok_or_else(|| Trouble::new("the URL has no host"))?;
        let proxy = self.proxies.to(details.uri);

        attempt::note(|attempt| {
            attempt.phase = Phase::Connect;
            attempt.reused = false;
        });
        let name = match proxy {
            Some(proxy) => format!("the proxy {}:{}", proxy.host, proxy.port),
            None => host.to_string(),
        };
        // These are the addresses that are connected to, whatever was looked up before. One that is
        // not public beside others that are is a trap rather than a mistake.
        if !details.addrs.iter().all(|addr| self.reach.allows(addr)) {
            let text = format!("{host} has an address that is not public");
            return Err(Trouble::new(text).into());
        }
        let socket = connect::race(&name, &details.addrs, by)?;
        let mut wire = Wire::new(socket);

        if details.needs_tls() {
            if let Some(proxy) = proxy {
                attempt::enter(Phase::Proxy);
                proxy::open_tunnel(timed(&wire, by), proxy, host, port)?;
            }
            attempt::enter(Phase::Tls);
            let tls = tls::handshake(&self.tls, host, timed(&wire, by))?;
            wire.encrypt(tls);
        } else if let Some(proxy) = proxy {
            wire.set_detour(detour(proxy, host, port));
        }
        Ok(Some(wire))
    }
}

fn timed(wire: &Wire, by: Instant) -> Timed<'_> {
    let socket = wire.socket();
    Timed { socket, by }
}

fn detour(proxy: &Proxy, host: &str, port: u16) -> Detour {
    let headers = match &proxy.authorization {
        Some(value) => format!("Proxy-Authorization: {value}\r\n"),
        None => String::new(),
    };
    let origin = match port {
        80 => format!("http://{host}"),
        _ => format!("http://{host}:{port}"),
    };
    Detour { origin, headers }
}

/// Outside of an attempt there is no time to connect in; the client never gets there.
fn connect_by() -> Instant {
    attempt::current().map_or_else(Instant::now, |attempt| attempt.connect_by)
}
