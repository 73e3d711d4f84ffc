//! Look-ups of names, by the operating system, without letting a dead name take the host's threads.
//!
//! The system's resolver blocks a thread, for as long as it likes: it knows nothing of an attempt's timeout, and goes
//! on after the attempt has ended. So there is one look-up under way for each name, whose answer goes to everybody who
//! asks meanwhile, and there are at most [`LOOKUPS`] in all. The room that a look-up takes is given back when it
//! really ends, not when nobody waits for it any more. Whoever finds no room waits, within the attempt's own timeout.
//!
//! The names are those of the configuration's URLs. Nothing is kept of a look-up that has ended.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::guard::Names;

/// Look-ups under way at once, over all names: an eighth of the threads that tokio keeps for blocking work, which the
/// store's reads and the compiler of policies need as well.
const LOOKUPS: usize = 64;

/// What a look-up found; shared among those who asked.
type Found = Result<Vec<IpAddr>, Arc<io::Error>>;

/// What becomes of a look-up: nothing yet, then what it found.
type Answer = watch::Receiver<Option<Found>>;

/// Blocks until `name` is looked up.
type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// The operating system's resolver.
pub(super) struct SystemNames {
    look_up: Arc<LookUp>,
    room: Arc<Semaphore>,
    under_way: Arc<UnderWay>,
}

/// The look-ups under way, by name.
#[derive(Default)]
struct UnderWay(Mutex<HashMap<String, Answer>>);

impl UnderWay {
    fn by_name(&self) -> MutexGuard<'_, HashMap<String, Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look-up under way. It lives as long as the blocking work does, however that ends.
struct Lookup {
    name: String,
    found: watch::Sender<Option<Found>>,
    under_way: Arc<UnderWay>,
    _room: OwnedSemaphorePermit,
}

impl Lookup {
    fn run(self, look_up: &LookUp) {
        let found = look_up(&self.name).map_err(Arc::new);
        self.found.send_replace(Some(found));
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.under_way.by_name().remove(&self.name);
    }
}

impl SystemNames {
    pub(super) fn new() -> Self {
        Self::with(|name| Ok((name, 0).to_socket_addrs()?.map(|found| found.ip()).collect()))
    }

    /// The same bounds over another way to look up.
    fn with(look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self { look_up: Arc::new(look_up), room: Arc::new(Semaphore::new(LOOKUPS)), under_way: Arc::default() }
    }

    /// The look-up of `name` that is under way, if there is one.
    fn joined(&self, name: &str) -> Option<Answer> {
        self.under_way.by_name().get(name).cloned()
    }

    /// Joins the look-up of `name` that is under way, or else starts one in the `room` given.
    fn started(&self, name: &str, room: OwnedSemaphorePermit) -> Answer {
        let mut by_name = self.under_way.by_name();
        if let Some(answer) = by_name.get(name) {
            return answer.clone();
        }
        let (found, answer) = watch::channel(None);
        by_name.insert(name.to_owned(), answer.clone());
        // From here on the look-up takes itself off the list, for which it needs the lock.
        drop(by_name);
        let lookup = Lookup { name: name.to_owned(), found, under_way: Arc::clone(&self.under_way), _room: room };
        let look_up = Arc::clone(&self.look_up);
        tokio::task::spawn_blocking(move || lookup.run(&*look_up));
        answer
    }
}

#[async_trait]
impl Names for SystemNames {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut answer = match self.joined(name) {
            Some(answer) => answer,
            None => {
                let room = Arc::clone(&self.room).acquire_owned().await.map_err(io::Error::other)?;
                self.started(name, room)
            }
        };
        match answer.wait_for(Option::is_some).await.ok().and_then(|found| found.clone()) {
            Some(Ok(addresses)) => Ok(addresses),
            Some(Err(error)) => Err(io::Error::new(error.kind(), error)),
            None => Err(io::Error::other("the look-up broke off")),
        }
    }
}

impl fmt::Debug for SystemNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemNames").field("room", &self.room.available_permits()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::super::vendor::until;
    use super::*;

    /// A resolver that is stuck at every name that begins with `dead`, until it is let go.
    #[derive(Default)]
    struct Stuck {
        started: AtomicUsize,
        free: Mutex<bool>,
        freed: Condvar,
    }

    impl Stuck {
        fn names(self: &Arc<Self>) -> Arc<SystemNames> {
            let stuck = Arc::clone(self);
            Arc::new(SystemNames::with(move |name| {
                stuck.started.fetch_add(1, Ordering::SeqCst);
                if name.starts_with("dead") {
                    let free = stuck.free.lock().unwrap();
                    drop(stuck.freed.wait_while(free, |free| !*free).unwrap());
                    return Err(io::Error::new(io::ErrorKind::NotFound, "nobody knows it"));
                }
                Ok(vec![IpAddr::from([1, 1, 1, 1])])
            }))
        }

        fn started(&self) -> usize {
            self.started.load(Ordering::SeqCst)
        }

        fn let_go(&self) {
            *self.free.lock().unwrap() = true;
            self.freed.notify_all();
        }
    }

    /// Lets a test's runtime end even where the test fails.
    struct LetGo(Arc<Stuck>);

    impl Drop for LetGo {
        fn drop(&mut self) {
            self.0.let_go();
        }
    }

    /// Asks for `name` and gives up soon, as an attempt with a short timeout does.
    async fn give_up_on(names: &SystemNames, name: &str) {
        let asked = tokio::time::timeout(Duration::from_millis(20), names.addresses(name)).await;
        assert!(asked.is_err(), "{name} should be stuck: {asked:?}");
    }

    #[tokio::test]
    async fn a_dead_name_takes_one_thread_however_many_ask_and_give_up() {
        let stuck = Arc::new(Stuck::default());
        let (names, _let_go) = (stuck.names(), LetGo(Arc::clone(&stuck)));
        for _ in 0..3 {
            join_all((0..600).map(|_| give_up_on(&names, "dead.test"))).await;
        }
        until("it is looked up", || stuck.started() > 0).await;
        assert_eq!(stuck.started(), 1);
        assert_eq!(names.room.available_permits(), LOOKUPS - 1, "its room is taken while it goes on");
        assert_eq!(names.addresses("alive.test").await.unwrap(), [IpAddr::from([1, 1, 1, 1])]);

        let asked = names.addresses("dead.test");
        tokio::pin!(asked);
        assert!(futures_util::poll!(&mut asked).is_pending());
        stuck.let_go();
        let error = asked.await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::NotFound, "nobody knows it"));
        until("its room is given back", || names.room.available_permits() == LOOKUPS).await;
        assert!(names.under_way.by_name().is_empty());
    }

    #[tokio::test]
    async fn many_dead_names_together_take_no_more_than_their_share_of_threads() {
        let stuck = Arc::new(Stuck::default());
        let (names, _let_go) = (stuck.names(), LetGo(Arc::clone(&stuck)));
        let dead: Vec<_> = (0..200).map(|n| format!("dead-{n}.test")).collect();
        join_all(dead.iter().map(|name| give_up_on(&names, name))).await;
        until("the room is full", || stuck.started() == LOOKUPS).await;
        give_up_on(&names, "alive.test").await;
        assert_eq!(stuck.started(), LOOKUPS);

        let waits = names.addresses("alive.test");
        tokio::pin!(waits);
        assert!(futures_util::poll!(&mut waits).is_pending());
        stuck.let_go();
        assert_eq!(waits.await.unwrap(), [IpAddr::from([1, 1, 1, 1])], "who waited gets room when there is some");
    }

    #[tokio::test]
    async fn a_name_that_was_found_is_looked_up_anew_the_next_time() {
        let stuck = Arc::new(Stuck::default());
        let names = stuck.names();
        for times in 1..=3 {
            names.addresses("alive.test").await.unwrap();
            until("it is over", || names.under_way.by_name().is_empty()).await;
            assert_eq!(stuck.started(), times);
        }
    }
}
