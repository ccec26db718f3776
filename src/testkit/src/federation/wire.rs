//! What servers of one process speak over: requests go from router to router, and fail as the test says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use axum::{Router, body::Body};
use bytes::Bytes;
use comity_federation_client::{Limits, Streamed, Transport, TransportError, Web};
use comity_protocol::id::{OwnedServerName, ServerName};
use comity_runtime::Runtime;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tower::ServiceExt;

use crate::spec;

/// Joins the servers that were attached to it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Wire(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    released: Notify,
}

type Direction = (OwnedServerName, OwnedServerName);
type Judge = Arc<dyn Fn(&Passing<'_>) -> Fate + Send + Sync>;

#[derive(Default)]
struct State {
    servers: BTreeMap<OwnedServerName, Attached>,
    sites: BTreeMap<String, Router>,
    without_spec: bool,
    cut: BTreeSet<Direction>,
    held: BTreeSet<Direction>,
    judge: Option<Judge>,
    log: Vec<String>,
    violations: Vec<String>,
}

/// What requests to a server come to.
#[derive(Clone)]
struct Attached {
    router: Router,
    /// The process: when it is killed, no answer comes any more.
    process: Runtime,
    /// Whether its answers are held against the specification.
    sound: bool,
}

/// A request on its way.
pub struct Passing<'a> {
    /// Who asks.
    pub from: &'a ServerName,
    /// Who is asked.
    pub to: &'a ServerName,
    /// What.
    pub request: &'a Request<Bytes>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives, and its answer.
    Arrives,
    /// It arrives after this long.
    After(Duration),
    /// It never arrives; whoever asks learns it when its patience ends.
    Lost,
    /// It arrives, its answer never does.
    AnswerLost,
    /// It arrives, and the connection breaks before its answer.
    AnswerBroken,
    /// There is no connection.
    Refused,
}

impl Wire {
    /// A wire without servers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a server be found by its name, instead of the one that was. The answers of a `sound` one are held against the
    /// specification.
    pub(crate) fn attach(&self, name: &ServerName, router: Router, process: Runtime, sound: bool) {
        let attached = Attached {
            router,
            process,
            sound,
        };
        let mut state = self.0.state.lock();
        state.servers.insert(name.to_owned(), attached);
    }

    /// Takes a server off: nobody finds it.
    pub fn detach(&self, name: &str) {
        let mut state = self.0.state.lock();
        state.servers.retain(|other, _| other.as_str() != name);
    }

    /// From now on answers aren't held against the specification: where there are too many of them.
    pub fn without_spec(&self) {
        self.0.state.lock().without_spec = true;
    }

    /// The end of the wire that a server asks through.
    #[must_use]
    pub fn end(&self, name: &ServerName) -> Arc<dyn Transport> {
        Arc::new(End {
            wire: self.clone(),
            name: name.to_owned(),
        })
    }

    /// Lets a site of the web be found by its host.
    pub fn site(&self, host: &str, router: Router) {
        self.0.state.lock().sites.insert(host.to_owned(), router);
    }

    /// The way to the web.
    #[must_use]
    pub fn web(&self) -> Arc<dyn Web> {
        Arc::new(self.clone())
    }

    /// From now on nothing goes either way between two servers.
    pub fn cut(&self, one: &str, other: &str) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// From now on nothing that `from` asks reaches `to`.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        self.0.state.lock().cut.insert(direction(from, to));
    }

    /// Whatever was cut or held goes again.
    pub fn heal(&self) {
        let mut state = self.0.state.lock();
        (state.cut, state.held) = Default::default();
        drop(state);
        self.0.released.notify_waiters();
    }

    /// From now on what `from` asks `to` waits until [`Wire::heal`] lets it arrive.
    pub fn hold(&self, from: &str, to: &str) {
        self.0.state.lock().held.insert(direction(from, to));
    }

    /// Lets `judge` decide about each request, beside what is cut and held.
    pub fn judge(&self, judge: impl Fn(&Passing<'_>) -> Fate + Send + Sync + 'static) {
        self.0.state.lock().judge = Some(Arc::new(judge));
    }

    /// What was asked so far, a line each: `from → to: METHOD path`. Telling clears it.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.state.lock().log)
    }

    /// Every answer that went over the wire was one that the specification allows.
    ///
    /// # Panics
    /// If one wasn't.
    pub fn assert_sound(&self) {
        let violations = &self.0.state.lock().violations;
        assert!(
            violations.is_empty(),
            "answers between servers, against the specification:\n{}",
            violations.join("\n")
        );
    }

    async fn carry(
        &self,
        from: &ServerName,
        to: &ServerName,
        request: Request<Bytes>,
        most: usize,
    ) -> Result<Response<Bytes>, TransportError> {
        let fate = self.fate(from, to, &request);
        match fate {
            Fate::Refused => return Err(unreachable()),
            Fate::Lost => std::future::pending().await,
            Fate::After(time) => tokio::time::sleep(time).await,
            Fate::Arrives | Fate::AnswerLost | Fate::AnswerBroken => {}
        }
        self.pass(from, to).await;
        let attached = self.0.state.lock().servers.get(to).cloned();
        let attached = attached.ok_or_else(unreachable)?;
        let what = (request.method().clone(), request.uri().clone());
        let answering = async {
            let response = attached.router.oneshot(request.map(Body::from)).await;
            let (parts, body) = response.unwrap_or_else(|never| match never {}).into_parts();
            let bytes = Limited::new(body, most).collect().await;
            let bytes = bytes.map_err(|_| TransportError::TooLarge)?.to_bytes();
            Ok::<_, TransportError>(Response::from_parts(parts, bytes))
        };
        let answered = attached.process.within(answering).await;
        let response = answered.ok_or_else(|| TransportError::Broken("it died".to_owned()))??;
        match fate {
            Fate::AnswerLost => std::future::pending().await,
            Fate::AnswerBroken => {
                return Err(TransportError::Broken("in the midst of it".to_owned()));
            }
            _ => {}
        }
        if attached.sound {
            self.check(&what, response.status().as_u16(), response.body());
        }
        Ok(response)
    }

    fn fate(&self, from: &ServerName, to: &ServerName, request: &Request<Bytes>) -> Fate {
        let mut state = self.0.state.lock();
        let target = request.uri().path_and_query();
        let target = target.map_or("/", |target| target.as_str());
        let line = format!("{from} → {to}: {} {target}", request.method());
        state.log.push(line);
        if state.cut.contains(&(from.to_owned(), to.to_owned())) {
            return Fate::Refused;
        }
        let judge = state.judge.clone();
        drop(state);
        judge.map_or(Fate::Arrives, |judge| judge(&Passing { from, to, request }))
    }

    /// Waits while this direction is held.
    async fn pass(&self, from: &ServerName, to: &ServerName) {
        let direction = (from.to_owned(), to.to_owned());
        loop {
            let mut released = std::pin::pin!(self.0.released.notified());
            released.as_mut().enable();
            if !self.0.state.lock().held.contains(&direction) {
                return;
            }
            released.await;
        }
    }

    fn check(&self, (method, uri): &(http::Method, http::Uri), status: u16, bytes: &[u8]) {
        if self.0.state.lock().without_spec {
            return;
        }
        let found = spec::violations((method.as_str(), uri.path()), (status, bytes), true);
        let found = found
            .into_iter()
            .map(|found| format!("{method} {} {status}: {found}", uri.path()));
        self.0.state.lock().violations.extend(found);
    }
}

/// Sites answer at once and lead nowhere else: how they are reached is tested where it is done.
#[async_trait]
impl Web for Wire {
    async fn get(
        &self,
        address: &str,
        _: &'static str,
        limits: Limits,
    ) -> Result<(String, Streamed), TransportError> {
        let uri: http::Uri = address.parse().map_err(|_| TransportError::Name)?;
        let host = uri.host().unwrap_or_default();
        self.0.state.lock().log.push(format!("web: {address}"));
        let site = self.0.state.lock().sites.get(host).cloned();
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let request = Request::get(target).body(Body::empty()).expect("a request");
        let answered = site.ok_or_else(unreachable)?.oneshot(request).await;
        let answer = answered.unwrap_or_else(|never| match never {});
        let mut left = limits.max_bytes;
        let answer = answer.map(|body| {
            let pieces = body.into_data_stream().map(move |piece| {
                let piece = piece.map_err(std::io::Error::other)?;
                left = left
                    .checked_sub(piece.len())
                    .ok_or(std::io::ErrorKind::FileTooLarge)?;
                Ok(piece)
            });
            pieces.boxed()
        });
        Ok((address.to_owned(), answer))
    }
}

fn unreachable() -> TransportError {
    TransportError::Connect("nobody is at the other end of the wire".to_owned())
}

fn direction(from: &str, to: &str) -> Direction {
    let name = |name: &str| OwnedServerName::try_from(name).expect("a server name");
    (name(from), name(to))
}

/// A server's end of the wire.
struct End {
    wire: Wire,
    name: OwnedServerName,
}

#[async_trait]
impl Transport for End {
    async fn send(
        &self,
        to: &ServerName,
        request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, TransportError> {
        let carried = self.wire.carry(&self.name, to, request, limits.max_bytes);
        match tokio::time::timeout(limits.timeout, carried).await {
            Ok(answer) => answer,
            Err(_) => Err(TransportError::Timeout),
        }
    }
}
