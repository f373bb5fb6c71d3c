//! A TCP proxy that breaks things on command.
//!
//! Each direction of each connection is a reader and a writer with a bounded queue between them: a stalled or delayed
//! direction fills the queue, then the kernel's buffers, and then the sender feels it, as on a real network. Orders reach
//! all connections through one watch channel.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    /// Raised by every cut: a connection lives in the epoch in which it was accepted.
    epoch: u64,
    refuse: bool,
    stall: [bool; 2],
    delay: [Duration; 2],
}

struct Shared {
    orders: watch::Sender<Orders>,
    bytes: [AtomicU64; 2],
    /// Bytes that may still pass before everything is cut; `i64::MAX` is no bound.
    budget: [AtomicI64; 2],
    accepted: AtomicU64,
    open: AtomicUsize,
}

impl Shared {
    fn cut(&self) {
        for budget in &self.budget {
            budget.store(i64::MAX, Ordering::SeqCst);
        }
        self.orders.send_modify(|o| o.epoch += 1);
    }
}

/// The proxy; it ends, with its connections, when dropped.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy before `upstream` (`host:port`), on a free port of 127.0.0.1.
    pub async fn to(upstream: impl Into<String>) -> Proxy {
        Proxy::listen(0, upstream).await
    }

    /// A proxy before `upstream` on this port of 127.0.0.1.
    pub async fn listen(port: u16, upstream: impl Into<String>) -> Proxy {
        let listener =
            TcpListener::bind(("127.0.0.1", port)).await.unwrap_or_else(|e| panic!("proxy on port {port}: {e}"));
        let addr = listener.local_addr().expect("the listener's address");
        let shared = Arc::new(Shared {
            orders: watch::Sender::new(Orders::default()),
            bytes: Default::default(),
            budget: [AtomicI64::new(i64::MAX), AtomicI64::new(i64::MAX)],
            accepted: AtomicU64::new(0),
            open: AtomicUsize::new(0),
        });
        let task = tokio::spawn(accept(listener, upstream.into(), shared.clone()));
        Proxy { addr, shared, task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
    /// Resets all present connections, on both sides.
    pub fn cut(&self) {
        self.shared.cut();
    }
    /// Whether new connections are closed at once.
    pub fn refuse(&self, yes: bool) {
        self.shared.orders.send_modify(|o| o.refuse = yes);
    }
    /// Whether a direction stands still, with its connections open.
    pub fn stall(&self, way: Way, yes: bool) {
        self.shared.orders.send_modify(|o| o.stall[way as usize] = yes);
    }
    /// Delivers a direction's bytes so much later; bytes on the way keep the delay they started with.
    pub fn delay(&self, way: Way, by: Duration) {
        self.shared.orders.send_modify(|o| o.delay[way as usize] = by);
    }
    /// Lets so many more bytes through in that direction, then resets all connections: in the middle of a message.
    pub fn truncate(&self, way: Way, after: u32) {
        self.shared.budget[way as usize].store(i64::from(after), Ordering::SeqCst);
    }
    /// Bytes delivered in that direction.
    pub fn bytes(&self, way: Way) -> u64 {
        self.shared.bytes[way as usize].load(Ordering::SeqCst)
    }
    /// Connections accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }
    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.cut();
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, upstream: String, shared: Arc<Shared>) {
    loop {
        // Refused or failed, a connection is its client's business.
        let Ok((client, _)) = listener.accept().await else { continue };
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let orders = *shared.orders.borrow();
        if orders.refuse {
            continue;
        }
        let (upstream, shared) = (upstream.clone(), shared.clone());
        tokio::spawn(async move {
            shared.open.fetch_add(1, Ordering::SeqCst);
            if let Ok(server) = TcpStream::connect(&upstream).await {
                carry(client, server, orders.epoch, &shared).await;
            }
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn carry(client: TcpStream, server: TcpStream, epoch: u64, shared: &Shared) {
    for stream in [&client, &server] {
        // Small messages must not wait for their acknowledgement; where the option fails, they are just slower.
        drop(stream.set_nodelay(true));
    }
    let (client_read, mut client_write) = client.into_split();
    let (server_read, mut server_write) = server.into_split();
    let mut orders = shared.orders.subscribe();
    let was_cut = tokio::select! {
        biased;
        _ = orders.wait_for(|o| o.epoch != epoch) => true,
        () = async {
            tokio::join!(
                pump(&client_read, &mut server_write, Way::Up, shared),
                pump(&server_read, &mut client_write, Way::Down, shared),
            );
        } => false,
    };
    if was_cut {
        // Without farewell: the peers see a reset, not an end.
        for half in [client_read, server_read] {
            drop(half.as_ref().set_zero_linger());
        }
        client_write.forget();
        server_write.forget();
    }
}

/// One direction until its end; then the end is passed on.
async fn pump(from: &OwnedReadHalf, to: &mut OwnedWriteHalf, way: Way, shared: &Shared) {
    let (queue, delivery) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let orders = shared.orders.subscribe();
    let read = async {
        let (queue, mut buffer) = (queue, vec![0; 16 * 1024]);
        loop {
            // Two halves of one stream read through a shared reference: readiness first, then what is there.
            if from.readable().await.is_err() {
                break;
            }
            match from.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    let due = Instant::now() + orders.borrow().delay[way as usize];
                    if queue.send((due, buffer[..n].to_vec())).await.is_err() {
                        break;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    tokio::join!(read, deliver(delivery, to, way, shared));
}

async fn deliver(mut delivery: mpsc::Receiver<(Instant, Vec<u8>)>, to: &mut OwnedWriteHalf, way: Way, shared: &Shared) {
    let mut orders = shared.orders.subscribe();
    while let Some((due, bytes)) = delivery.recv().await {
        tokio::time::sleep_until(due).await;
        if orders.wait_for(|o| !o.stall[way as usize]).await.is_err() {
            return;
        }
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let budget = &shared.budget[way as usize];
        let left = match budget.load(Ordering::SeqCst) {
            i64::MAX => size,
            _ => budget.fetch_sub(size, Ordering::SeqCst).clamp(0, size),
        };
        let passing = &bytes[..usize::try_from(left).unwrap_or(0)];
        if to.write_all(passing).await.is_err() {
            return;
        }
        shared.bytes[way as usize].fetch_add(passing.len() as u64, Ordering::SeqCst);
        if left < size {
            // What was let through must arrive before the reset does, or the reset would swallow it.
            drop(to.flush().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
            shared.cut();
            return;
        }
    }
    // The peer may have gone first: then there is nobody to tell.
    drop(to.shutdown().await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually;
    use tokio::io::AsyncReadExt;

    /// A server that sends back what it gets.
    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut r, mut w) = stream.split();
                    tokio::io::copy(&mut r, &mut w).await
                });
            }
        });
        addr
    }
    async fn exchange(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
        stream.write_all(text).await?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await?;
        Ok(back)
    }
    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn passes_bytes_and_ends_on() {
        let proxy = Proxy::to(echo().await).await;
        let mut c = TcpStream::connect(proxy.addr()).await.unwrap();
        let big = vec![7; 3_000_000];
        let (mut r, mut w) = c.split();
        let mut back = Vec::new();
        let (sent, got) = tokio::join!(
            async {
                w.write_all(&big).await?;
                w.shutdown().await
            },
            r.read_to_end(&mut back)
        );
        sent.unwrap();
        assert_eq!(got.unwrap(), big.len());
        assert_eq!(back, big);
        assert_eq!((proxy.bytes(Way::Up), proxy.bytes(Way::Down)), (3_000_000, 3_000_000));
        eventually(SOON, "closed", async || if proxy.open() == 0 { Ok(()) } else { Err(proxy.open()) }).await;
        assert_eq!(proxy.accepted(), 1);
    }

    #[tokio::test]
    async fn cuts_with_a_reset_and_lets_new_ones_in() {
        let proxy = Proxy::to(echo().await).await;
        let mut c = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(exchange(&mut c, b"one").await.unwrap(), b"one");
        proxy.cut();
        let broken = tokio::time::timeout(SOON, c.read_u8()).await.expect("an end").unwrap_err();
        assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
        let mut c = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(exchange(&mut c, b"two").await.unwrap(), b"two");
        proxy.refuse(true);
        let mut refused = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(exchange(&mut refused, b"three").await.is_err());
        // the one that was there is not touched
        assert_eq!(exchange(&mut c, b"four").await.unwrap(), b"four");
    }

    #[tokio::test]
    async fn stalls_one_direction_and_goes_on() {
        let proxy = Proxy::to(echo().await).await;
        let mut c = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(exchange(&mut c, b"one").await.unwrap(), b"one");
        proxy.stall(Way::Down, true);
        c.write_all(b"two").await.unwrap();
        eventually(SOON, "two is sent up", async || if proxy.bytes(Way::Up) == 6 { Ok(()) } else { Err("not yet") })
            .await;
        assert!(tokio::time::timeout(Duration::from_millis(200), c.read_u8()).await.is_err(), "nothing comes down");
        proxy.stall(Way::Down, false);
        let mut back = [0; 3];
        tokio::time::timeout(SOON, c.read_exact(&mut back)).await.expect("in time").unwrap();
        assert_eq!(&back, b"two");
    }

    #[tokio::test]
    async fn a_stalled_connection_can_be_cut() {
        let proxy = Proxy::to(echo().await).await;
        let mut c = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(exchange(&mut c, b"one").await.unwrap(), b"one");
        proxy.stall(Way::Down, true);
        proxy.stall(Way::Up, true);
        c.write_all(b"two").await.unwrap();
        proxy.cut();
        assert!(tokio::time::timeout(SOON, c.read_u8()).await.expect("an end").is_err());
    }

    #[tokio::test]
    async fn delays() {
        let proxy = Proxy::to(echo().await).await;
        let mut c = TcpStream::connect(proxy.addr()).await.unwrap();
        proxy.delay(Way::Up, Duration::from_millis(150));
        proxy.delay(Way::Down, Duration::from_millis(150));
        let began = std::time::Instant::now();
        assert_eq!(exchange(&mut c, b"one").await.unwrap(), b"one");
        assert!(began.elapsed() >= Duration::from_millis(300));
    }

    #[tokio::test]
    async fn truncates_in_the_middle() {
        let proxy = Proxy::to(echo().await).await;
        let mut c = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(exchange(&mut c, b"one").await.unwrap(), b"one");
        proxy.truncate(Way::Down, 4);
        c.write_all(b"twothree").await.unwrap();
        let mut back = [0; 4];
        tokio::time::timeout(SOON, c.read_exact(&mut back)).await.expect("in time").unwrap();
        assert_eq!(&back, b"twot");
        assert!(tokio::time::timeout(SOON, c.read_u8()).await.expect("an end").is_err());
        assert_eq!(proxy.bytes(Way::Down), 7);
        // once
        let mut c = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(exchange(&mut c, b"twothree").await.unwrap(), b"twothree");
    }
}
