//! Products of two amounts divided by a third, exact in 256 bits.

use ruint::aliases::U256;

/// `floor(a x b / divisor)`; `None` if the divisor is 0 or the quotient needs more than 128 bits.
pub(crate) fn mul_div_floor(a: u128, b: u128, divisor: u128) -> Option<u128> {
    if divisor == 0 {
        return None;
    }
    match a.checked_mul(b) {
        Some(product) => Some(product / divisor),
        None => u128::try_from(wide(a, b) / U256::from(divisor)).ok(),
    }
}

/// `ceil(a x b / divisor)`; `None` if the divisor is 0 or the quotient needs more than 128 bits.
pub(crate) fn mul_div_ceil(a: u128, b: u128, divisor: u128) -> Option<u128> {
    if divisor == 0 {
        return None;
    }
    match a.checked_mul(b) {
        Some(product) => Some(product.div_ceil(divisor)),
        None => u128::try_from(wide(a, b).div_ceil(U256::from(divisor))).ok(),
    }
}

fn wide(a: u128, b: u128) -> U256 {
    // Two factors of 128 bits fit into 256.
    U256::from(a) * U256::from(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_exact_and_round_as_they_say() {
        let check = |a, b, divisor, floor, ceil| {
            assert_eq!(mul_div_floor(a, b, divisor), floor, "floor({a} x {b} / {divisor})");
            assert_eq!(mul_div_ceil(a, b, divisor), ceil, "ceil({a} x {b} / {divisor})");
        };
        check(7, 3, 2, Some(10), Some(11));
        check(6, 3, 2, Some(9), Some(9));
        check(0, 3, 2, Some(0), Some(0));
        check(1, 1, 0, None, None);
        check(u128::MAX, u128::MAX, u128::MAX, Some(u128::MAX), Some(u128::MAX));
        check(u128::MAX, 2, 1, None, None);
        check(u128::MAX, 3, 2, None, None);
        check(u128::MAX, 3, 4, Some(u128::MAX / 4 * 3 + 2), Some(u128::MAX / 4 * 3 + 3));
        check(1 << 104, 1 << 84, 1 << 100, Some(1 << 88), Some(1 << 88));
    }
}
