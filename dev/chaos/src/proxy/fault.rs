//! What can be wrong with a line, and the orders that make it so.
//!
//! ```text
//! pass                          nothing is wrong any more
//! delay MS [JITTER]             each frame is that much later, give or take, in both directions
//! drip BYTES                    so many bytes a second, each in a packet of its own
//! freeze                        nothing moves, nothing ends; on `pass` what was held back moves on
//! refuse                        open connections end, new ones are refused
//! hang-up                       open connections go on, new ones end as soon as they are made
//! lifetime FROM TO              each connection ends after so many milliseconds
//! cut-request API BYTE TIMES    the connection ends when BYTE bytes of a request have passed
//! cut-answer API BYTE TIMES     ... of an answer
//! lose API TIMES                ... when the broker's answer to a request has come: nobody hears it
//! swallow API TIMES             the answer is taken away, and the connection goes on
//! ```
//! API is produce, metadata, api-versions, init-producer-id or any. BYTE is taken modulo the frame's length,
//! so that any number is a place in any frame. TIMES are used up by the line's connections together.

use std::time::Duration;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// All, in an order; any other, in a frame.
    Any,
    Produce,
    Metadata,
    Versions,
    ProducerId,
}

/// Faults that hit a number of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    CutRequest,
    CutAnswer,
    Lose,
    Swallow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ordered {
    fault: Fault,
    api: Api,
    byte: u64,
    times: u64,
}

/// All that is wrong with a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    pub delay: Duration,
    pub jitter: Duration,
    /// Bytes a second, one at a time.
    pub drip: Option<u64>,
    pub freeze: bool,
    pub refuse: bool,
    pub hang_up: bool,
    pub lifetime: Option<(Duration, Duration)>,
    ordered: Vec<Ordered>,
}

impl Api {
    /// By the number in a request's header.
    pub fn of(key: i16) -> Api {
        match key {
            0 => Api::Produce,
            3 => Api::Metadata,
            18 => Api::Versions,
            22 => Api::ProducerId,
            _ => Api::Any,
        }
    }

    fn parse(word: &str) -> Option<Api> {
        Some(match word {
            "any" => Api::Any,
            "produce" => Api::Produce,
            "metadata" => Api::Metadata,
            "api-versions" => Api::Versions,
            "init-producer-id" => Api::ProducerId,
            _ => return None,
        })
    }
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Fault::CutRequest => "cut-request",
            Fault::CutAnswer => "cut-answer",
            Fault::Lose => "lose",
            Fault::Swallow => "swallow",
        }
    }
}

impl Faults {
    /// Follows an order, its line's name taken off.
    pub fn follow(&mut self, order: &str) -> Result<(), String> {
        let words: Vec<&str> = order.split_whitespace().collect();
        let ordered = |fault, api, byte, times| {
            let api = Api::parse(api).ok_or_else(|| format!("no such API: {api}"))?;
            Ok::<_, String>(Ordered { fault, api, byte: number(byte)?, times: number(times)? })
        };
        match words[..] {
            ["pass"] => *self = Faults::default(),
            ["delay", ms] => (self.delay, self.jitter) = (millis(ms)?, Duration::ZERO),
            ["delay", ms, jitter] => (self.delay, self.jitter) = (millis(ms)?, millis(jitter)?),
            ["drip", bytes] => self.drip = Some(number(bytes)?.max(1)),
            ["freeze"] => self.freeze = true,
            ["refuse"] => self.refuse = true,
            ["hang-up"] => self.hang_up = true,
            ["lifetime", from, to] => {
                let (from, to) = (millis(from)?, millis(to)?);
                self.lifetime = Some((from, to.max(from)));
            }
            ["cut-request", api, byte, times] => {
                self.ordered.push(ordered(Fault::CutRequest, api, byte, times)?);
            }
            ["cut-answer", api, byte, times] => {
                self.ordered.push(ordered(Fault::CutAnswer, api, byte, times)?);
            }
            ["lose", api, times] => self.ordered.push(ordered(Fault::Lose, api, "0", times)?),
            ["swallow", api, times] => {
                self.ordered.push(ordered(Fault::Swallow, api, "0", times)?);
            }
            _ => return Err(format!("no such order: {order}")),
        }
        Ok(())
    }

    /// Uses up one time of an ordered fault for a frame of this API; returns its byte.
    pub fn take(&mut self, fault: Fault, api: Api) -> Option<u64> {
        let hits = |ordered: &Ordered| {
            ordered.fault == fault && (ordered.api == Api::Any || ordered.api == api)
        };
        let place = self.ordered.iter().position(hits)?;
        let ordered = &mut self.ordered[place];
        ordered.times = ordered.times.saturating_sub(1);
        let byte = ordered.byte;
        if ordered.times == 0 {
            self.ordered.remove(place);
        }
        Some(byte)
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("not a number: {word}"))
}

fn millis(word: &str) -> Result<Duration, String> {
    number(word).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_takes_back_every_order() {
        let mut faults = Faults::default();
        let orders = "delay 100 50;drip 1000;freeze;refuse;hang-up;lifetime 500 1500;\
                      cut-request produce 17 3;cut-answer any 4 1;lose produce 2;swallow metadata 1";
        for order in orders.split(';') {
            let before = faults.clone();
            faults.follow(order).unwrap();
            assert_ne!(faults, before, "{order}");
        }
        faults.follow("pass").unwrap();
        assert_eq!(faults, Faults::default());
    }

    #[test]
    fn an_order_that_makes_no_sense_changes_nothing() {
        let mut faults = Faults::default();
        for order in
            ["", "delay", "delay x", "cut-request produce 1", "lose everything 1", "stop 1"]
        {
            assert!(faults.follow(order).is_err(), "{order}");
        }
        assert_eq!(faults, Faults::default());
    }

    #[test]
    fn an_ordered_fault_hits_its_api_as_often_as_ordered() {
        let mut faults = Faults::default();
        faults.follow("cut-request produce 17 2").unwrap();
        assert_eq!(faults.take(Fault::CutRequest, Api::Metadata), None);
        assert_eq!(faults.take(Fault::CutAnswer, Api::Produce), None);
        assert_eq!(faults.take(Fault::CutRequest, Api::Produce), Some(17));
        assert_eq!(faults.take(Fault::CutRequest, Api::Produce), Some(17));
        assert_eq!(faults.take(Fault::CutRequest, Api::Produce), None);
        faults.follow("swallow any 1").unwrap();
        assert_eq!(faults.take(Fault::Swallow, Api::ProducerId), Some(0));
    }
}
