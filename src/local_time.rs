//! Local time as nginx writes it.

/// Appends `YYYY-MM-DD HH:MM:SS` in the process's time zone, with `separator` between the parts of the date:
/// `-` as `ngx.localtime()` has it, `/` as the error log does.
pub fn put(out: &mut Vec<u8>, timestamp_ms: i64, separator: u8) {
    let seconds: libc::time_t = timestamp_ms.div_euclid(1000);
    // SAFETY: an all-zero tm is a valid value of that plain struct.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of ours; localtime_r keeps neither. It fails only for years
    // beyond its range and then leaves the zeros, which print as a date nobody takes for a real one.
    unsafe { libc::localtime_r(&seconds, &mut parts) };
    let separator = char::from(separator);
    let text = format!(
        "{:04}{separator}{:02}{separator}{:02} {:02}:{:02}:{:02}",
        i64::from(parts.tm_year) + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec
    );
    out.extend_from_slice(text.as_bytes());
}

/// Reads `YYYY-MM-DD HH:MM:SS` of the process's time zone back, as milliseconds since 1970. `None` for anything
/// else. Of the hour that comes twice in autumn the C library chooses one.
pub fn parse(text: &[u8]) -> Option<i64> {
    const SHAPE: &[u8] = b"dddd-dd-dd dd:dd:dd";
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'd' => byte.is_ascii_digit(),
        _ => byte == shape,
    };
    if text.len() != SHAPE.len() || !text.iter().zip(SHAPE).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| {
        text[from..to].iter().fold(0, |sum, digit| sum * 10 + libc::c_int::from(digit - b'0'))
    };
    // SAFETY: an all-zero tm is a valid value of that plain struct.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    parts.tm_year = number(0, 4) - 1900;
    parts.tm_mon = number(5, 7) - 1;
    parts.tm_mday = number(8, 10);
    parts.tm_hour = number(11, 13);
    parts.tm_min = number(14, 16);
    parts.tm_sec = number(17, 19);
    parts.tm_isdst = -1;
    let possible = (0..12).contains(&parts.tm_mon)
        && (1..=31).contains(&parts.tm_mday)
        && parts.tm_hour < 24
        && parts.tm_min < 60
        && parts.tm_sec <= 60;
    if !possible {
        return None;
    }
    // SAFETY: the pointer is to a live value of ours, which mktime reads and normalises.
    let seconds = unsafe { libc::mktime(&mut parts) };
    (seconds != -1).then_some(seconds * 1000)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_was_written_is_read_back_to_the_second() {
        for ms in [0, 1_700_000_000_999, 951_782_400_000, 4_102_444_799_000] {
            let mut out = Vec::new();
            super::put(&mut out, ms, b'-');
            assert_eq!(
                super::parse(&out),
                Some(ms - ms % 1000),
                "{}",
                String::from_utf8_lossy(&out)
            );
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for bad in [
            "",
            "2024-01-01",
            "2024/01/01 00:00:00",
            "2024-13-01 00:00:00",
            "2024-00-01 00:00:00",
            "2024-01-32 00:00:00",
            "2024-01-01 24:00:00",
            "2024-01-01 00:60:00",
            "2024-01-01 00:00:0a",
            "2024-01-01 00:00:000",
            "-024-01-01 00:00:00",
        ] {
            assert_eq!(super::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn has_the_shape_of_nginx_s_own_and_takes_any_number() {
        for (ms, separator) in
            [(1_700_000_000_000, b'-'), (0, b'/'), (i64::MAX, b'-'), (i64::MIN, b'/')]
        {
            let mut out = Vec::new();
            super::put(&mut out, ms, separator);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.matches(char::from(separator)).count(), 2, "{text}");
            assert_eq!(text.matches(':').count(), 2, "{text}");
        }
    }
}
