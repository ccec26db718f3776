//! Pages and files of the web, by addresses that users and other servers choose.
//!
//! Every hop is a connection of its own to an address that was looked at (threat H2): wherever a name, a redirect or an odd way to
//! write an address leads, nothing that isn't on the public internet is connected to.

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use tokio::time::{Instant, timeout_at};
use url::{Host as UrlHost, Url};

use super::{
    Connection, Outbound,
    dial::{Host, Purpose, Target},
    discover::certificate_name,
    stream,
};
use crate::transport::{Limits, Streamed, TransportError, Web};

/// Followed at most.
const REDIRECTS: usize = 5;
/// What servers of pages are told that we are; some answer programs otherwise.
const AGENT: HeaderValue = HeaderValue::from_static("Comity (bot; Matrix homeserver)");

#[async_trait]
impl Web for Outbound {
    async fn get(
        &self,
        address: &str,
        accept: &'static str,
        limits: Limits,
    ) -> Result<(String, Streamed), TransportError> {
        let until = Instant::now() + limits.timeout;
        let mut url = Url::parse(address).map_err(|_| TransportError::Name)?;
        for _ in 0..=REDIRECTS {
            let hop = timeout_at(until, async {
                let connection = self.to(&url).await?;
                stream::ask(connection, request(&url, accept)?).await
            });
            let answer = hop.await.unwrap_or(Err(TransportError::Timeout))?;
            if !answer.status().is_redirection() {
                return Ok((url.into(), stream::pieces(answer, limits)?));
            }
            let location = answer.headers().get(header::LOCATION);
            let location = location.and_then(|to| to.to_str().ok());
            let next = location.and_then(|to| url.join(to).ok());
            url = next.ok_or(TransportError::Name)?;
        }
        Err(TransportError::Broken("redirects without end".to_owned()))
    }
}

impl Outbound {
    /// A connection to where an address points.
    async fn to(&self, url: &Url) -> Result<Connection, TransportError> {
        let Ok(_place) = self.in_flight.acquire().await else {
            return Err(TransportError::Broken("shutting down".to_owned()));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TransportError::Name);
        }
        let (host, literal) = match url.host().ok_or(TransportError::Name)? {
            UrlHost::Domain(name) => (Host::Name(name.to_owned()), name.to_owned()),
            UrlHost::Ipv4(address) => (Host::Ip(address.into()), address.to_string()),
            UrlHost::Ipv6(address) => (Host::Ip(address.into()), address.to_string()),
        };
        let port = url.port_or_known_default().ok_or(TransportError::Name)?;
        let targets = [Target { host, port }];
        match url.scheme() {
            "https" => {
                let name = certificate_name(&literal)?;
                let stream = self.dialer.connect(&targets, &name, Purpose::Page);
                self.speak(stream.await?).await
            }
            "http" => self.speak(self.dialer.connect_plain(&targets).await?).await,
            _ => Err(TransportError::Name),
        }
    }
}

fn request(url: &Url, accept: &'static str) -> Result<Request<Bytes>, TransportError> {
    let host = url.host_str().unwrap_or_default();
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, accept)
        .header(header::USER_AGENT, AGENT)
        .body(Bytes::new())
        .map_err(|_| TransportError::Name)
}
