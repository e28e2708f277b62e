//! A proxy before a server, which can keep the server's answers to itself and cut all connections.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use commissaire::testkit::{Outcome, Server};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

pub(super) struct Proxy {
    port: u16,
    muted: Arc<AtomicBool>,
    dials: Arc<AtomicUsize>,
    cut: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn start(server: &Server) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (port, to) = (listener.local_addr()?.port(), server.port());
        let muted = Arc::new(AtomicBool::new(false));
        let cut = watch::Sender::new(());
        let dials = Arc::new(AtomicUsize::new(0));
        let (quiet, cutting, counting) = (muted.clone(), cut.clone(), dials.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counting.fetch_add(1, Ordering::SeqCst);
                let (quiet, mut cut) = (quiet.clone(), cutting.subscribe());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                    tokio::select! {
                        () = pass(client, server, &quiet) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Ok(Self { port, muted, dials, cut, task })
    }

    pub(super) fn uri(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How often it was dialled.
    pub(super) fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }

    /// What the server says from now on is lost, or is passed on again.
    pub(super) fn mute(&self, muted: bool) {
        self.muted.store(muted, Ordering::SeqCst);
    }

    /// Cuts all connections that there are.
    pub(super) fn cut(&self) {
        self.cut.send_replace(());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, server: TcpStream, muted: &AtomicBool) {
    let (mut asking, mut told) = client.into_split();
    let (mut answering, mut asked) = server.into_split();
    let answers = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = answering.read(&mut buffer).await {
            if !muted.load(Ordering::SeqCst) && told.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = answers => {}
        _ = copy(&mut asking, &mut asked) => {}
    }
}
