//! `/metrics`, `/healthz`, `/readyz`.
//!
//! Nothing here can change anything and nothing here holds a secret: metrics have bounded labels, the status board holds
//! errors, and errors hold none. Rendering metrics takes milliseconds with many tables, so it runs off the async threads,
//! which the sources' keepalives need.

use crate::{metrics::Metrics, status::Board};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use seachange_sdk::{Error, Kind, Result, Retry, Side};
use std::net::SocketAddr;
use tokio::{net::TcpListener, sync::watch};

#[derive(Clone)]
struct Shared {
    metrics: Metrics,
    board: Board,
}

/// Takes the address. Done before any pipeline starts, so that a second daemon on the same address is told at once.
pub async fn bind(listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|e| {
        Error::new(Kind::Connect, Side::Own, Retry::Never, format!("the HTTP server cannot listen on {listen}"))
            .fix("change server.listen, or end what listens there; \"off\" does without the server")
            .cause(e)
    })
}

/// Serves until `shutdown` says true.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    board: Board,
    mut shutdown: watch::Receiver<bool>,
) -> std::io::Result<()> {
    axum::serve(listener, router(metrics, board))
        .with_graceful_shutdown(async move {
            // An error means that nobody is left who could say it: the end as well.
            shutdown.wait_for(|stop| *stop).await.ok();
        })
        .await
}

fn router(metrics: Metrics, board: Board) -> Router {
    Router::new()
        .route("/metrics", get(render))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Shared { metrics, board })
}

async fn render(State(shared): State<Shared>) -> Response {
    match tokio::task::spawn_blocking(move || shared.metrics.render()).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(e) => {
            tracing::error!("metrics could not be rendered: {e}");
            (StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be rendered; the log says more\n").into_response()
        }
    }
}

async fn ready(State(shared): State<Shared>) -> Response {
    let (ready, body) = shared.board.report();
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Phase;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(addr: SocketAddr, path: &str) -> String {
        let mut s = tokio::net::TcpStream::connect(addr).await.unwrap();
        s.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut out = String::new();
        s.read_to_string(&mut out).await.unwrap();
        out
    }

    #[tokio::test]
    async fn answers() {
        let metrics = crate::metrics::install().unwrap();
        let board = Board::new(["shop"]);
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let e = bind(addr).await.unwrap_err();
        assert!(e.to_string().contains(&addr.to_string()) && e.remedy().is_some(), "{e:?}");

        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener, metrics, board.clone(), stopped));
        let r = ask(addr, "/metrics").await;
        assert!(r.starts_with("HTTP/1.1 200") && r.contains("text/plain; version=0.0.4"), "{r}");
        assert!(r.contains("seachange_up 1\n") && r.contains("process_cpu_seconds_total"), "{r}");
        assert!(r.contains("seachange_pipeline_state{pipeline=\"shop\",state=\"idle\"} 1"), "{r}");
        assert!(ask(addr, "/healthz").await.starts_with("HTTP/1.1 200"));
        let r = ask(addr, "/readyz").await;
        assert!(r.starts_with("HTTP/1.1 503") && r.contains("\"ready\":false"), "{r}");
        board.entry("shop").unwrap().set(Phase::Streaming);
        let r = ask(addr, "/readyz").await;
        assert!(r.starts_with("HTTP/1.1 200") && r.contains("\"state\":\"streaming\""), "{r}");
        assert!(ask(addr, "/none").await.starts_with("HTTP/1.1 404"));
        stop.send(true).unwrap();
        server.await.unwrap().unwrap();
    }
}
