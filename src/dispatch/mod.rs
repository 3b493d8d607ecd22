//! Getting it there: claim, send, judge, settle.
