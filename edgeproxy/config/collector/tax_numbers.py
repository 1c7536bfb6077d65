"""Countries, and Stripe's type of tax number for each. Literal, pure."""

from collections.abc import Mapping

_EUROPEAN_UNION = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
_OTHERS = (
    "AE:ae_trn AR:ar_cuit AU:au_abn BH:bh_vat BR:br_cnpj CA:ca_bn CH:ch_vat CL:cl_tin CO:co_nit CR:cr_tin EC:ec_ruc "
    "EG:eg_tin GB:gb_vat GE:ge_vat HK:hk_br ID:id_npwp IL:il_vat IN:in_gst IS:is_vat JP:jp_trn KE:ke_pin KR:kr_brn "
    "KZ:kz_bin LI:li_vat MX:mx_rfc MY:my_sst NG:ng_tin NO:no_vat NZ:nz_gst OM:om_vat PE:pe_ruc PH:ph_tin RS:rs_pib "
    "SA:sa_vat SG:sg_gst TH:th_vat TR:tr_tin TW:tw_vat UA:ua_vat US:us_ein UY:uy_ruc VN:vn_tin ZA:za_vat"
)
_COUNTRIES = (
    "AD AE AF AG AI AL AM AO AQ AR AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ "
    "CA CD CF CG CH CI CK CL CM CN CO CR CV CW CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FO FR GA GB "
    "GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HN HR HT HU ID IE IL IM IN IO IQ IS IT JE JM JO JP KE "
    "KG KH KI KM KN KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MK ML MM MN MO MQ MR MS MT MU "
    "MV MW MX MY MZ NA NC NE NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PY QA RE RO RS RU RW "
    "SA SB SC SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA "
    "UG US UY UZ VA VC VE VG VN VU WF WS YE YT ZA ZM ZW"
)
COUNTRIES = frozenset(_COUNTRIES.split())
"""The countries of addresses that Stripe accepts (ISO 3166-1 alpha-2)."""
TAX_NUMBER_TYPES: Mapping[str, str] = {
    **dict.fromkeys(_EUROPEAN_UNION.split(), "eu_vat"),
    **dict(pair.split(":") for pair in _OTHERS.split()),
}
"""Stripe's type of the tax number of a business, by the country of its address."""
