//! Just enough HTTP to ask the daemon.

use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// `GET path`: status and body.
pub async fn get(addr: SocketAddr, path: &str) -> Result<(u16, String), String> {
    let answer = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").as_bytes())
            .await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes = match tokio::time::timeout(Duration::from_secs(10), answer).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(e)) => return Err(format!("{addr}{path}: {e}")),
        Err(_) => return Err(format!("{addr}{path}: no answer within 10 s")),
    };
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("{addr}{path}: no HTTP answer"))?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| format!("{addr}{path}: {head}"))?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { unchunk(body) } else { body.to_owned() }))
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Some(size) = usize::from_str_radix(size.trim(), 16).ok().filter(|n| *n > 0) else { break };
        whole.push_str(rest.get(..size).unwrap_or(rest));
        body = rest.get(size..).map_or("", |r| r.trim_start_matches("\r\n"));
    }
    whole
}

/// A page of metrics in Prometheus' text format.
#[derive(Clone, Debug)]
pub struct Metrics(pub String);

impl Metrics {
    /// The sum over all series of this name that carry these labels; `None` when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut sum = None;
        for line in self.0.lines().filter(|l| !l.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (this, rest) = series.split_once('{').unwrap_or((series, ""));
            let carries = |(k, v): &(&str, &str)| {
                let pair = format!("{k}=\"{v}\"");
                rest.starts_with(&pair) || rest.contains(&format!(",{pair}"))
            };
            if this == name && labels.iter().all(carries) {
                *sum.get_or_insert(0.0) += value.parse::<f64>().unwrap_or(f64::NAN);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_by_label() {
        let page = Metrics("# TYPE a counter\na{op=\"c\",table=\"x\"} 2\na{op=\"u\",table=\"x\"} 3\nab 7\n".into());
        assert_eq!(page.sum("a", &[]), Some(5.0));
        assert_eq!(page.sum("a", &[("table", "x"), ("op", "c")]), Some(2.0));
        assert_eq!(page.sum("ab", &[]), Some(7.0));
        assert_eq!(page.sum("a", &[("op", "d")]), None);
    }

    #[test]
    fn chunks_are_joined() {
        assert_eq!(unchunk("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), "abcde");
    }
}
