//! Redis, which may answer anything at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::MAC_SECRET;
use super::dice::Dice;
use crate::doorman::Word;
use crate::ids::{CouponId, UserId};
use crate::ledger::Definition;
use crate::outside::Mend;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Honest,
    /// Loses what it was told, now and then.
    Forgetful,
    /// Says whatever comes.
    Liar,
    Gone,
}

#[derive(Debug)]
pub(super) struct Redis {
    pub(super) mood: Mood,
    sets: Mutex<BTreeMap<CouponId, BTreeSet<UserId>>>,
}

impl Redis {
    pub(super) fn new(mood: Mood) -> Self {
        Self { mood, sets: Mutex::default() }
    }

    pub(super) fn wipe(&self) {
        self.sets.lock().unwrap().clear();
    }

    /// As the script does it.
    pub(super) fn admit(
        &self,
        dice: &Dice,
        coupon: CouponId,
        stock: u32,
        users: &[UserId],
    ) -> Option<Vec<Word>> {
        match self.mood {
            Mood::Gone => return None,
            Mood::Liar => {
                let words = [Word::Admitted, Word::Already, Word::SoldOut, Word::Away];
                return Some(users.iter().map(|_| *dice.pick(&words)).collect());
            }
            Mood::Forgetful if dice.percent(5) => self.wipe(),
            Mood::Forgetful | Mood::Honest => {}
        }
        let mut sets = self.sets.lock().unwrap();
        let set = sets.entry(coupon).or_default();
        let word = |user: &UserId| {
            if set.contains(user) {
                Word::Already
            } else if set.len() >= stock as usize {
                Word::SoldOut
            } else {
                set.insert(*user);
                Word::Admitted
            }
        };
        Some(users.iter().map(word).collect())
    }

    pub(super) fn mend(&self, dice: &Dice, coupon: CouponId, mend: Mend, users: &[UserId]) -> bool {
        if self.mood == Mood::Gone || dice.percent(5) {
            return false;
        }
        let mut sets = self.sets.lock().unwrap();
        let set = sets.entry(coupon).or_default();
        for user in users {
            match mend {
                Mend::Add => set.insert(*user),
                Mend::Remove => set.remove(user),
            };
        }
        true
    }

    /// The cached definition: the newest, an old one, or one that nobody signed.
    pub(super) fn cached(&self, dice: &Dice, known: &[Definition]) -> Option<String> {
        let newest = known.last()?;
        let (definition, secret) = match (self.mood, dice.below(3)) {
            (Mood::Gone, _) | (Mood::Forgetful, 0) => return None,
            (Mood::Honest, _) | (Mood::Forgetful, 1) => (*newest, MAC_SECRET),
            (Mood::Forgetful, _) | (Mood::Liar, 0) => (*dice.pick(known), MAC_SECRET),
            (Mood::Liar, _) => {
                let forged = Definition { stock: newest.stock + 5, version: newest.version + 1, ..*newest };
                (forged, "a secret that Redis made up by itself")
            }
        };
        let Definition { coupon, version, stock, starts_at, ends_at, closed } = definition;
        let signed = format!("{coupon}|{version}|{stock}|{starts_at}|{ends_at}|{}", u8::from(closed));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        let mac = hex::encode(mac.finalize().into_bytes());
        Some(format!(
            r#"{{"couponId":{coupon},"version":{version},"quantity":{stock},"startsAt":{starts_at},"endsAt":{ends_at},"closed":{closed},"mac":"{mac}"}}"#
        ))
    }
}
