//! Negative controls: a proof that can't fail proves nothing, so test builds can take single guards out of the
//! production code, and the model test has to notice each time.

/// What is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Without: ISSUED is said at the acknowledgement, without reading the record back.
    ReadBack,
    /// Without: ISSUED is said on the doorman's word.
    LogDecides,
    /// Without: the stock is looked at before membership, so that it is gone for winners, too.
    MembershipFirst,
    /// Without: "no" is said without an end of the log that was asked for after the request arrived.
    EndOffset,
    /// Without: the watermark moves in a transaction of its own, before that of the rows.
    OneTransaction,
    /// Without: an idle consumer does not read its watermark again.
    IdleLook,
    /// Without: a cached definition counts without the coupon service's MAC.
    Mac,
    /// Without: whoever joins a claim in flight takes its refusal, also of a claim sent earlier.
    JoinersArrival,
    /// Without: a refusal counts at any offset, not only at the one that was acknowledged for this claim.
    AckedOffset,
    /// Without: that the database has no row of a retired coupon's winner counts also before it has followed so far.
    IndexIsLevel,
    /// Without: the winners of a retired coupon leave memory before the database has followed so far, and its word on them
    /// counts all the same. One of the two alone is not enough: who left early is asked of the database, which says that
    /// it does not know yet.
    EvictLate,
    /// Without: ids are drawn from a counter in the database, which may be restored.
    #[cfg(test)]
    IdsByTime,
}

impl Guard {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 12] = [
        Self::ReadBack,
        Self::LogDecides,
        Self::MembershipFirst,
        Self::EndOffset,
        Self::OneTransaction,
        Self::IdleLook,
        Self::Mac,
        Self::JoinersArrival,
        Self::AckedOffset,
        Self::IndexIsLevel,
        Self::EvictLate,
        Self::IdsByTime,
    ];
}

#[cfg(test)]
thread_local! {
    static TAKEN_OUT: std::cell::Cell<Option<Guard>> = const { std::cell::Cell::new(None) };
}

/// Takes a guard out on this thread, or puts all back.
#[cfg(test)]
pub(crate) fn take_out(guard: Option<Guard>) {
    TAKEN_OUT.set(guard);
}

/// Whether this guard is taken out; never but in test builds.
#[cfg(test)]
pub(crate) fn without(guard: Guard) -> bool {
    TAKEN_OUT.get() == Some(guard)
}

/// The same in a process: `FIRSTCOME_WITHOUT` names the guard as it is written here.
#[cfg(all(feature = "fault-injection", not(test)))]
pub(crate) fn without(guard: Guard) -> bool {
    static TAKEN_OUT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let name = TAKEN_OUT.get_or_init(|| std::env::var("FIRSTCOME_WITHOUT").unwrap_or_default());
    !name.is_empty() && *name == format!("{guard:?}")
}

#[cfg(not(any(test, feature = "fault-injection")))]
#[inline(always)]
pub(crate) const fn without(_: Guard) -> bool {
    false
}
