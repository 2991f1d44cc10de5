//! Times as FAT keeps them: a date from 1980 to 2107 and a time in steps of two seconds, without a
//! zone. We take them for UTC, as Linux does with `tz=UTC`.

use crate::Time;

const DAY: i64 = 86_400;
/// 1980-01-01 and 2107-12-31 23:59:58, in seconds since 1970.
const FIRST: i64 = 315_532_800;
const LAST: i64 = 4_354_819_198;

/// Date (bits 0 to 4 the day, 5 to 8 the month, the rest years since 1980) and time (bits 0 to 4
/// seconds/2, 5 to 10 minutes, the rest hours), and the hundredths of a second that are left.
/// What lies outside of the years is moved to their border.
pub(crate) fn encode(time: Time) -> (u16, u16, u8) {
    let seconds = time.seconds.clamp(FIRST, LAST);
    let nanoseconds = if seconds == time.seconds { time.nanoseconds } else { 0 };
    let (year, month, day) = civil(seconds.div_euclid(DAY));
    let of_day = seconds.rem_euclid(DAY);
    let date = (((year - 1980) << 9) | (month << 5) | day) as u16;
    let clock = (((of_day / 3600) << 11) | ((of_day / 60 % 60) << 5) | (of_day % 60 / 2)) as u16;
    let hundredths = (of_day % 2 * 100 + i64::from(nanoseconds) / 10_000_000) as u8;
    (date, clock, hundredths)
}

/// The time that date, time and hundredths mean; a date of 0 is none.
pub(crate) fn decode(date: u16, clock: u16, hundredths: u8) -> Option<Time> {
    if date == 0 {
        return None;
    }
    let (date, clock) = (i64::from(date), i64::from(clock));
    let days =
        days_from_civil((date >> 9) + 1980, (date >> 5 & 15).clamp(1, 12), (date & 31).max(1));
    let of_day = (clock >> 11) * 3600 + (clock >> 5 & 63) * 60 + (clock & 31) * 2;
    let hundredths = u32::from(hundredths.min(199));
    Some(Time {
        seconds: days * DAY + of_day + i64::from(hundredths / 100),
        nanoseconds: hundredths % 100 * 10_000_000,
    })
}

/// Days since 1970 to year, month, day in the Gregorian calendar; counted in years that begin in
/// March, so that the leap day is the last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let march = (month + 9) % 12;
    let of_year = (153 * march + 2) / 5 + day - 1;
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        // 2026-11-29 07:43:03.25
        let time = Time { seconds: 1_795_938_183, nanoseconds: 250_000_000 };
        let (date, clock, hundredths) = encode(time);
        assert_eq!((date >> 9, date >> 5 & 15, date & 31), (46, 11, 29));
        assert_eq!((clock >> 11, clock >> 5 & 63, clock & 31), (7, 43, 1));
        assert_eq!(hundredths, 125);
        assert_eq!(decode(date, clock, hundredths), Some(time));
        for seconds in (FIRST..LAST).step_by(86_399 * 17) {
            let (date, clock, hundredths) = encode(Time::from_seconds(seconds));
            assert_eq!(decode(date, clock, hundredths), Some(Time::from_seconds(seconds)));
        }
        assert_eq!(encode(Time::from_seconds(0)), encode(Time::from_seconds(FIRST)));
        assert_eq!(decode(0, 0, 0), None);
    }
}
