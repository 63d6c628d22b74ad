//! Asks questions on a thread of its own, so that one which is never answered holds nobody up.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::verdict::{Check, Failure, Question};
use crate::commands::run_state::{Doing, RunState};
use crate::commands::several::no_thread;
use crate::engine::Stop;
use crate::error::{Class, Error};
use crate::model::text;

/// How long one question may take.
pub const TIME_FOR_A_QUESTION: Duration = Duration::from_secs(10);
/// The same where much is asked: credentials of a node, a long listing, all that lies on a volume.
pub const TIME_FOR_MUCH: Duration = Duration::from_secs(20);

/// Between two looks at whether the run is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The futures of the SDK are large.
const STACK_BYTES: usize = 8 << 20;

/// What the thread that asks says.
enum Said {
    Asks(Question, Duration),
    Found(Check),
}

/// Tells what is asked, and what was found.
pub struct Teller(Sender<Said>);

impl Teller {
    /// From now on this is asked; without an answer in time, nothing more is expected of this thread.
    pub fn asks(&self, question: Question) {
        self.asks_for(question, TIME_FOR_A_QUESTION);
    }

    pub fn asks_for(&self, question: Question, time: Duration) {
        // Nobody listens any more where an answer was too late.
        let _ = self.0.send(Said::Asks(question, time));
    }

    pub fn tell(&self, check: Check) {
        let _ = self.0.send(Said::Found(check));
    }
}

/// Lets `ask` ask, and hands over each check as it comes.
pub fn collect(
    ask: impl FnOnce(&Teller) + Send + 'static,
    each: &mut dyn FnMut(Check) -> Result<(), Error>,
    stop: &Stop,
    state: &RunState,
) -> Result<(), Error> {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::Builder::new().name("ask".into()).stack_size(STACK_BYTES);
    // Not waited for: it may hang in the kernel.
    thread.spawn(move || ask(&Teller(tell))).map_err(no_thread)?;
    let mut asked: Option<(Question, Instant, Duration)> = None;
    loop {
        match told.recv_timeout(LOOK_EVERY) {
            Ok(Said::Asks(question, time)) => {
                state.enter(Doing::Checking(question.shown()));
                asked = Some((question, Instant::now(), time));
            }
            Ok(Said::Found(check)) => each(check)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if stop.is_set() {
            return Err(Error::Stopped);
        }
        if let Some((question, _, time)) = asked.take_if(|(_, since, time)| since.elapsed() > *time)
        {
            return each(question.clone().failed(no_answer(&question, time)));
        }
    }
}

/// The failure of a question that nobody has answered.
fn no_answer(question: &Question, time: Duration) -> Failure {
    let (class, hint) = match question.area {
        "volume" | "container" => {
            (Class::LocalIo, "look at the server of the volume, and at the node (`dmesg`)")
        }
        _ => (Class::Unreachable, "look at the network, and at what the pod may reach"),
    };
    let what = format!("no answer for {}", text::duration(time));
    Failure { class, what, hint: Some(hint.into()) }
}
