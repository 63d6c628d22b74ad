//! Answers `GET /metrics`. The HTTP is hyper's.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::Error;
use crate::model::Message;

/// So many are answered at the same time; others wait.
const MOST: usize = 8;
/// How long a connection may last.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers on a thread of its own, as long as the process lives.
pub fn serve(
    address: SocketAddr,
    metrics: impl Fn() -> String + Send + Sync + 'static,
) -> Result<(), Error> {
    let cannot = |error: std::io::Error| {
        Error::Usage(
            Message::new(format!("--metrics-listen: cannot listen at {address}: {error}"))
                .hint("choose another port, or an address of this pod"),
        )
    };
    let bound = std::net::TcpListener::bind(address).or_else(|error| match address {
        // A port alone, on a machine without IPv6.
        SocketAddr::V6(any) if any.ip().is_unspecified() => {
            std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, any.port())).map_err(|_| error)
        }
        _ => Err(error),
    });
    let listener = bound.map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(cannot)?;
    let metrics = Arc::new(metrics);
    let answer = move || {
        let tasks = tokio::task::LocalSet::new();
        tasks.block_on(&runtime, async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            let places = Arc::new(Semaphore::new(MOST));
            loop {
                let Ok(place) = places.clone().acquire_owned().await else { return };
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of descriptors, or a connection that was gone again.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let metrics = metrics.clone();
                tokio::task::spawn_local(async move {
                    let service = service_fn(move |request| {
                        let response = response(&request, &*metrics);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .keep_alive(false)
                        .serve_connection(TokioIo::new(stream), service);
                    let _ = tokio::time::timeout(PATIENCE, connection).await;
                    drop(place);
                });
            }
        });
    };
    std::thread::Builder::new().name("metrics".into()).spawn(answer).map_err(cannot)?;
    Ok(())
}

fn response<B>(request: &Request<B>, metrics: &dyn Fn() -> String) -> Response<Full<Bytes>> {
    let is_reading = [Method::GET, Method::HEAD].contains(request.method());
    let (status, text) = match request.uri().path() {
        "/metrics" if is_reading => (StatusCode::OK, metrics()),
        "/metrics" => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into()),
        _ => (StatusCode::NOT_FOUND, "the metrics are at /metrics\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
