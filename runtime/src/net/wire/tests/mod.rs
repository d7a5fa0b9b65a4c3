//! Tests of what the wire decides, without the process: frames are made and read by etherparse, which is somebody else's.

mod captures;
mod decisions;
mod flows;
mod frames;
mod reading;
