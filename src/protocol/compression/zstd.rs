//! zstd: one frame that says how long its content is, since readers need less memory when they know.

use super::encode::{Encode, Failed};
use zstd_safe::{
    CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, zstd_sys::ZSTD_EndDirective,
};

/// Room that is made in the buffer when there is none.
const STEP: usize = 16 << 10;

pub(super) struct Zstd {
    context: Option<CCtx<'static>>,
    level: Option<i32>,
}

impl Zstd {
    /// Levels are 1 to 22, and those below, which are quicker; another one is the next of those.
    pub fn new(level: Option<i32>) -> Zstd {
        Zstd { context: None, level }
    }

    /// The context, which is as large as the level wants it.
    fn context(&mut self) -> Result<&mut CCtx<'static>, Failed> {
        if self.context.is_none() {
            let mut context = CCtx::try_create().ok_or(Failed)?;
            let level = self.level.unwrap_or(zstd_safe::CLEVEL_DEFAULT);
            let level = level.clamp(zstd_safe::min_c_level(), zstd_safe::max_c_level());
            context.set_parameter(CParameter::CompressionLevel(level)).map_err(|_| Failed)?;
            self.context = Some(context);
        }
        self.context.as_mut().ok_or(Failed)
    }

    fn run(
        &mut self,
        out: &mut Vec<u8>,
        bytes: &[u8],
        then: ZSTD_EndDirective,
    ) -> Result<(), Failed> {
        let is_end = then == ZSTD_EndDirective::ZSTD_e_end;
        let context = self.context()?;
        let mut input = InBuffer::around(bytes);
        loop {
            if out.len() == out.capacity() {
                out.reserve(STEP);
            }
            let at = out.len();
            let mut output = OutBuffer::around_pos(out, at);
            let left =
                context.compress_stream2(&mut output, &mut input, then).map_err(|_| Failed)?;
            if if is_end { left == 0 } else { input.pos() == bytes.len() } {
                return Ok(());
            }
        }
    }
}

impl Encode for Zstd {
    fn begin(&mut self, _: &mut Vec<u8>, len: usize) -> Result<(), Failed> {
        let context = self.context()?;
        context.reset(ResetDirective::SessionOnly).map_err(|_| Failed)?;
        context.set_pledged_src_size(Some(len as u64)).map_err(|_| Failed)?;
        Ok(())
    }

    fn put(&mut self, out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Failed> {
        self.run(out, bytes, ZSTD_EndDirective::ZSTD_e_continue)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Failed> {
        self.run(out, &[], ZSTD_EndDirective::ZSTD_e_end)
    }
}
