//! The load side's HTTP: one keep-alive HTTP/1 connection at a time, and nothing between it and the socket.
//!
//! No pool, no redirects, no compression: the client shares two cores with the server it measures, so
//! it must cost little and the same for every server.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;

use crate::error::{Error, Result};
use crate::target::Target;

/// An answer: status and whole body.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body as received.
    pub body: Bytes,
}

impl Answer {
    /// The body of an answer that says yes.
    ///
    /// # Errors
    /// [`Error::Refused`] for any status but 2xx.
    pub fn accepted(self, method: &Method, path: &str) -> Result<Bytes> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        Err(Error::Refused {
            method: method.to_string(),
            path: path.split('?').next().unwrap_or_default().to_owned(),
            status: self.status,
            body: String::from_utf8_lossy(&self.body)
                .chars()
                .take(200)
                .collect(),
        })
    }
}

/// One connection, opened on first use and again when the server closed it.
pub struct Connection {
    target: Target,
    source: Option<IpAddr>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// A connection to `target` from any local address.
    #[must_use]
    pub fn new(target: &Target) -> Self {
        Self {
            target: target.clone(),
            source: None,
            sender: None,
        }
    }

    /// A connection whose client end is bound to `source`: one address has only 28,000 ports.
    #[must_use]
    pub fn from_address(target: &Target, source: IpAddr) -> Self {
        Self {
            target: target.clone(),
            source: Some(source),
            sender: None,
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the operator names the server to load"
    )]
    async fn open(&self) -> Result<SendRequest<Full<Bytes>>> {
        let socket = if self.target.address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(self.target.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.target.secured(stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends when the sender is dropped or the server hangs up; what failed, the request says.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Opens the connection now rather than with the first request.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Http`] when the server doesn't let it.
    pub async fn connect(&mut self) -> Result<()> {
        self.sender = Some(self.open().await?);
        Ok(())
    }

    /// Sends one request and reads the whole answer. An idle connection that the server has
    /// closed is opened again; a request that was under way is not repeated.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Http`] when there was no whole answer.
    pub async fn request(
        &mut self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Bytes,
    ) -> Result<Answer> {
        let authorization = token.map(|token| format!("Bearer {token}"));
        self.exchange(method, path, authorization.as_deref(), body)
            .await
    }

    /// Asks for `path` and counts the bytes of the answer as they come, without keeping them: the
    /// answers to hundreds who ask at once would not fit into memory.
    ///
    /// # Errors
    /// [`Error::Refused`] for any status but 2xx; [`Error::Io`] or [`Error::Http`] when there was no whole answer.
    pub async fn drain(&mut self, path: &str, token: &str) -> Result<usize> {
        let authorization = format!("Bearer {token}");
        let (sender, response) = self
            .ask(Method::GET, path, Some(&authorization), Bytes::new())
            .await?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        if !(200..300).contains(&status) {
            let body = body.collect().await?.to_bytes();
            return Answer { status, body }
                .accepted(&Method::GET, path)
                .map(|body| body.len());
        }
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, Bytes::len);
        }
        self.sender = Some(sender);
        Ok(bytes)
    }

    /// [`Connection::request`] with an `Authorization` of another kind.
    ///
    /// # Errors
    /// As there.
    pub async fn signed(
        &mut self,
        method: Method,
        path: &str,
        authorization: &str,
        body: Bytes,
    ) -> Result<Answer> {
        self.exchange(method, path, Some(authorization), body).await
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: Bytes,
    ) -> Result<Answer> {
        let (sender, response) = self.ask(method, path, authorization, body).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        self.sender = Some(sender);
        Ok(Answer { status, body })
    }

    /// Sends one request and waits for the head of its answer. The sender is kept by the caller until the body is read.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: Bytes,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>)> {
        let mut kept = self.sender.take();
        if let Some(sender) = &mut kept
            && sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.open().await?,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.target.prefix))
            .header(HOST, &self.target.host);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body))
            .map_err(|_| Error::BaseUrl(path.to_owned()))?;
        let response = sender.send_request(request).await?;
        Ok((sender, response))
    }
}
