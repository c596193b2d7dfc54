//! A country as radio regulation knows it.

use std::fmt;

use super::SiteError;

/// The countries of wireless-regdb 2026.09.03, from which the kernel takes what is allowed where. It takes no other.
const COUNTRIES: &str = "\
    AD AE AF AI AL AM AN AR AS AT AU AW AZ BA BB BD BE BF BG BH BL BM BN BO BR BS BT BW BY BZ CA CF CH CI CL CN CO CR CU CX CY CZ DE DK DM \
    DO DZ EC EE EG ES ET FI FM FO FR GB GD GE GF GH GI GL GP GR GT GU GY HK HN HR HT HU ID IE IL IM IN IR IS IT JM JO JP KE KH KN KP KR KW \
    KY KZ LB LC LI LK LS LT LU LV MA MC MD ME MF MH MK MN MO MP MQ MR MT MU MV MW MX MY NA NG NI NL NO NP NZ OM PA PE PF PG PH PK PL PM PR \
    PT PW PY QA RE RO RS RU RW SA SE SG SI SK SM SN SR SV SX SY TC TD TG TH TN TR TT TW TZ UA UG US UY UZ VA VC VE VI VN VU WF WS YE YT ZA \
    ZW";

/// What people write for a country that has another code.
const MISTAKEN: [(&str, &str); 5] = [
    ("UK", "GB"),
    ("EN", "GB"),
    ("SF", "FI"),
    ("SW", "SE"),
    ("JA", "JP"),
];

/// A country that the kernel knows the rules of: two upper-case letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountryCode(String);

impl CountryCode {
    /// Parses a code in either case.
    pub fn parse(text: &str) -> Result<Self, SiteError> {
        if text.len() != 2 || !text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(SiteError::Country(text.to_owned()));
        }
        let code = text.to_ascii_uppercase();
        if let Some((_, meant)) = MISTAKEN.iter().find(|(wrong, _)| *wrong == code) {
            return Err(SiteError::MistakenCountry { code, meant });
        }
        if !COUNTRIES.split(' ').any(|known| known == code) {
            return Err(SiteError::UnknownCountry(code));
        }
        Ok(Self(code))
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_country_is_one_that_the_kernel_knows() {
        for (text, expected) in [
            ("DE", "DE"),
            ("us", "US"),
            ("zw", "ZW"),
            (
                "",
                "`` is no country code; it has two letters, such as DE or US (ISO 3166-1)",
            ),
            (
                "D",
                "`D` is no country code; it has two letters, such as DE or US (ISO 3166-1)",
            ),
            (
                "DEU",
                "`DEU` is no country code; it has two letters, such as DE or US (ISO 3166-1)",
            ),
            (
                "0A",
                "`0A` is no country code; it has two letters, such as DE or US (ISO 3166-1)",
            ),
            (
                "ß",
                "`ß` is no country code; it has two letters, such as DE or US (ISO 3166-1)",
            ),
            ("uk", "`UK` is no country code; did you mean `GB`?"),
            (
                "zz",
                "the kernel knows no rules for a country `ZZ`; without one, radios use what is allowed everywhere",
            ),
        ] {
            let told = match CountryCode::parse(text) {
                Ok(code) => code.to_string(),
                Err(error) => error.to_string(),
            };
            assert_eq!(told, expected);
        }
    }
}
