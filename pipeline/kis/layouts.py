"""The quotation calls of KIS as tables: path, id, parameters, field names in order, row limits, and the codes of its
answers.

The rows that `wire.py` makes of the pages are here too. Client, parser (`wire.py`) and simulator read the same tables,
so that a layout is written down once. Source of the facts: the official sample repository
koreainvestment/open-trading-api and the API portal's documents carried in it.
"""

from dataclasses import dataclass

import pyarrow as pa

QUOTATIONS = "/uapi/domestic-stock/v1/quotations/"
SUCCESS, CONTINUED = "MCA00000", "KIOK0500"

# code -> (rt_cd, HTTP status, text). /oauth2/* answers carry the same codes as error_code and error_description.
MESSAGES: dict[str, tuple[str, int, str]] = {
    SUCCESS: ("0", 200, "정상처리 되었습니다."),
    CONTINUED: ("0", 200, "조회가 계속됩니다."),
    "EGW00101": ("1", 403, "잘못된 요청입니다."),
    "EGW00102": ("1", 403, "AppKey는 필수입니다."),
    "EGW00103": ("1", 403, "유효하지 않은 AppKey입니다."),
    "EGW00104": ("1", 403, "AppSecret은 필수입니다."),
    "EGW00105": ("1", 403, "유효하지 않은 AppSecret입니다."),
    "EGW00115": ("1", 403, "grant_type은 필수입니다."),
    "EGW00116": ("1", 403, "지원하지 않는 grant_type입니다."),
    "EGW00121": ("1", 500, "유효하지 않은 token 입니다."),
    "EGW00122": ("1", 500, "token을 찾을 수 없습니다."),
    "EGW00123": ("1", 500, "기간이 만료된 token 입니다."),
    "EGW00133": ("1", 403, "접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회)"),
    "EGW00201": ("1", 500, "초당 거래건수를 초과하였습니다."),
    "EGW00202": ("1", 500, "GW라우팅 중 오류가 발생했습니다."),
    "EGW00205": ("1", 500, "credentials_type이 유효하지 않습니다.(Bearer)"),
    "EGW00213": ("1", 500, "모의투자 TR 이 아닙니다."),
    "KIER2620": ("7", 200, "조회할 자료가 없습니다."),
    "OPSQ0002": ("2", 200, "없는 서비스 코드 입니다"),
    "OPSQ2001": ("2", 200, "ERROR INPUT FIELD NOT FOUND"),
}


@dataclass(frozen=True)
class Tr:
    """One quotation call: where it lives, what it takes and what a page may hold.

    page_by: "none" | "end_date" (next end = oldest date - 1 day) | "hour" (next hour = oldest - 1 minute, today only) |
    "date_hour" | "context" (header tr_cont and ctx_area_* fields). max_rows 0: a single object. Documented names in
    `params` must all be sent, even blank. `array` is the field that holds the rows, `summary` the one that holds a
    single object.
    """

    name: str
    path: str
    tr_id: str
    paper: bool
    max_rows: int
    page_by: str
    params: tuple[str, ...]
    array: str = ""
    summary: str = ""
    fields: tuple[str, ...] = ()
    summary_fields: tuple[str, ...] = ()


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ITEM = ("FID_COND_MRKT_DIV_CODE", "FID_INPUT_ISCD")
_SPAN = ("FID_INPUT_DATE_1", "FID_INPUT_DATE_2", "FID_PERIOD_DIV_CODE")
_CHANGE = ("prdy_vrss", "prdy_vrss_sign", "prdy_ctrt")
_MINUTE = (
    "stck_bsop_date",
    "stck_cntg_hour",
    "stck_prpr",
    "stck_oprc",
    "stck_hgpr",
    "stck_lwpr",
    "cntg_vol",
    "acml_tr_pbmn",
)
_MINUTE_SUMMARY = (*_CHANGE, "stck_prdy_clpr", "acml_vol", "acml_tr_pbmn", "hts_kor_isnm", "stck_prpr")

PRICE = Tr(
    name="inquire-price",
    path=QUOTATIONS + "inquire-price",
    tr_id="FHKST01010100",
    paper=True,
    max_rows=0,
    page_by="none",
    params=_ITEM,
    summary="output",
    summary_fields=_names(
        "iscd_stat_cls_code marg_rate rprs_mrkt_kor_name new_hgpr_lwpr_cls_code bstp_kor_isnm temp_stop_yn "
        "oprc_rang_cont_yn clpr_rang_cont_yn crdt_able_yn grmn_rate_cls_code elw_pblc_yn stck_prpr prdy_vrss "
        "prdy_vrss_sign prdy_ctrt acml_tr_pbmn acml_vol prdy_vrss_vol_rate stck_oprc stck_hgpr stck_lwpr "
        "stck_mxpr stck_llam stck_sdpr wghn_avrg_stck_prc hts_frgn_ehrt frgn_ntby_qty pgtr_ntby_qty "
        "pvt_scnd_dmrs_prc pvt_frst_dmrs_prc pvt_pont_val pvt_frst_dmsp_prc pvt_scnd_dmsp_prc dmrs_val dmsp_val "
        "cpfn rstc_wdth_prc stck_fcam stck_sspr aspr_unit hts_deal_qty_unit_val lstn_stcn hts_avls per pbr "
        "stac_month vol_tnrt eps bps d250_hgpr d250_hgpr_date d250_hgpr_vrss_prpr_rate d250_lwpr d250_lwpr_date "
        "d250_lwpr_vrss_prpr_rate stck_dryy_hgpr dryy_hgpr_vrss_prpr_rate dryy_hgpr_date stck_dryy_lwpr "
        "dryy_lwpr_vrss_prpr_rate dryy_lwpr_date w52_hgpr w52_hgpr_vrss_prpr_ctrt w52_hgpr_date w52_lwpr "
        "w52_lwpr_vrss_prpr_ctrt w52_lwpr_date whol_loan_rmnd_rate ssts_yn stck_shrn_iscd fcam_cnnm cpfn_cnnm "
        "apprch_rate frgn_hldn_qty vi_cls_code ovtm_vi_cls_code last_ssts_cntg_qty invt_caful_yn "
        "mrkt_warn_cls_code short_over_yn sltr_yn mang_issu_cls_code"
    ),
)
DAILY_PRICE = Tr(
    name="inquire-daily-price",
    path=QUOTATIONS + "inquire-daily-price",
    tr_id="FHKST01010400",
    paper=True,
    max_rows=30,
    page_by="none",
    params=(*_ITEM, "FID_PERIOD_DIV_CODE", "FID_ORG_ADJ_PRC"),
    array="output",
    fields=_names(
        "stck_bsop_date stck_oprc stck_hgpr stck_lwpr stck_clpr acml_vol prdy_vrss_vol_rate prdy_vrss "
        "prdy_vrss_sign prdy_ctrt hts_frgn_ehrt frgn_ntby_qty flng_cls_code acml_prtt_rate"
    ),
)
DAILY = Tr(
    name="inquire-daily-itemchartprice",
    path=QUOTATIONS + "inquire-daily-itemchartprice",
    tr_id="FHKST03010100",
    paper=True,
    max_rows=100,
    page_by="end_date",
    params=(*_ITEM, *_SPAN, "FID_ORG_ADJ_PRC"),
    array="output2",
    summary="output1",
    fields=_names(
        "stck_bsop_date stck_clpr stck_oprc stck_hgpr stck_lwpr acml_vol acml_tr_pbmn flng_cls_code prtt_rate "
        "mod_yn prdy_vrss_sign prdy_vrss revl_issu_reas"
    ),
    summary_fields=_names(
        "prdy_vrss prdy_vrss_sign prdy_ctrt stck_prdy_clpr acml_vol acml_tr_pbmn hts_kor_isnm stck_prpr "
        "stck_shrn_iscd prdy_vol stck_mxpr stck_llam stck_oprc stck_hgpr stck_lwpr stck_prdy_oprc stck_prdy_hgpr "
        "stck_prdy_lwpr askp bidp prdy_vrss_vol vol_tnrt stck_fcam lstn_stcn cpfn hts_avls per eps pbr "
        "itewhol_loan_rmnd_ratem"
    ),
)
MINUTES_TODAY = Tr(
    name="inquire-time-itemchartprice",
    path=QUOTATIONS + "inquire-time-itemchartprice",
    tr_id="FHKST03010200",
    paper=True,
    max_rows=30,
    page_by="hour",
    params=("FID_ETC_CLS_CODE", *_ITEM, "FID_INPUT_HOUR_1", "FID_PW_DATA_INCU_YN"),
    array="output2",
    summary="output1",
    fields=_MINUTE,
    summary_fields=_MINUTE_SUMMARY,
)
MINUTES_PAST = Tr(
    name="inquire-time-dailychartprice",
    path=QUOTATIONS + "inquire-time-dailychartprice",
    tr_id="FHKST03010230",
    paper=False,
    max_rows=120,
    page_by="date_hour",
    params=(*_ITEM, "FID_INPUT_HOUR_1", "FID_INPUT_DATE_1", "FID_PW_DATA_INCU_YN", "FID_FAKE_TICK_INCU_YN"),
    array="output2",
    summary="output1",
    fields=_MINUTE,
    summary_fields=_MINUTE_SUMMARY,
)
INDEX_DAILY = Tr(
    name="inquire-daily-indexchartprice",
    path=QUOTATIONS + "inquire-daily-indexchartprice",
    tr_id="FHKUP03500100",
    paper=True,
    max_rows=100,
    page_by="end_date",
    params=(*_ITEM, *_SPAN),
    array="output2",
    summary="output1",
    fields=_names(
        "stck_bsop_date bstp_nmix_prpr bstp_nmix_oprc bstp_nmix_hgpr bstp_nmix_lwpr acml_vol acml_tr_pbmn mod_yn"
    ),
    summary_fields=_names(
        "bstp_nmix_prdy_vrss prdy_vrss_sign bstp_nmix_prdy_ctrt prdy_nmix acml_vol acml_tr_pbmn hts_kor_isnm "
        "bstp_nmix_prpr bstp_cls_code prdy_vol bstp_nmix_oprc bstp_nmix_hgpr bstp_nmix_lwpr futs_prdy_oprc "
        "futs_prdy_hgpr futs_prdy_lwpr"
    ),
)
_WHO = {"prsn": "persons", "frgn": "foreign", "orgn": "institutions"}
_WHAT = {
    "ntby_qty": "net_volume",
    "ntby_tr_pbmn": "net_turnover",
    "shnu_vol": "buy_volume",
    "shnu_tr_pbmn": "buy_turnover",
    "seln_vol": "sell_volume",
    "seln_tr_pbmn": "sell_turnover",
}
FLOWS = {f"{who}_{what}": f"{_WHO[who]}_{_WHAT[what]}" for what in _WHAT for who in _WHO}
INVESTORS = Tr(
    name="inquire-investor",
    path=QUOTATIONS + "inquire-investor",
    tr_id="FHKST01010900",
    paper=True,
    max_rows=30,
    page_by="none",
    params=_ITEM,
    array="output",
    fields=("stck_bsop_date", "stck_clpr", "prdy_vrss", "prdy_vrss_sign", *FLOWS),
)
HOLIDAYS = Tr(
    name="chk-holiday",
    path=QUOTATIONS + "chk-holiday",
    tr_id="CTCA0903R",
    paper=False,
    max_rows=24,
    page_by="context",
    params=("BASS_DT", "CTX_AREA_NK", "CTX_AREA_FK"),
    array="output",
    fields=("bass_dt", "wday_dvsn_cd", "bzdy_yn", "tr_day_yn", "opnd_yn", "sttl_day_yn"),
)
STOCK_INFO = Tr(
    name="search-stock-info",
    path=QUOTATIONS + "search-stock-info",
    tr_id="CTPF1002R",
    paper=False,
    max_rows=0,
    page_by="none",
    params=("PRDT_TYPE_CD", "PDNO"),
    summary="output",
    summary_fields=_names(
        "pdno prdt_type_cd mket_id_cd scty_grp_id_cd excg_dvsn_cd setl_mmdd lstg_stqt lstg_cptl_amt cpta papr "
        "issu_pric kospi200_item_yn scts_mket_lstg_dt scts_mket_lstg_abol_dt kosdaq_mket_lstg_dt "
        "kosdaq_mket_lstg_abol_dt frbd_mket_lstg_dt frbd_mket_lstg_abol_dt reits_kind_cd etf_dvsn_cd oilf_fund_yn "
        "idx_bztp_lcls_cd idx_bztp_mcls_cd idx_bztp_scls_cd stck_kind_cd mfnd_opng_dt mfnd_end_dt "
        "dpsi_erlm_cncl_dt etf_cu_qty prdt_name prdt_name120 prdt_abrv_name std_pdno prdt_eng_name "
        "prdt_eng_name120 prdt_eng_abrv_name dpsi_aptm_erlm_yn etf_txtn_type_cd etf_type_cd lstg_abol_dt "
        "nwst_odst_dvsn_cd sbst_pric thco_sbst_pric thco_sbst_pric_chng_dt tr_stop_yn admn_item_yn thdt_clpr "
        "bfdy_clpr clpr_chng_dt std_idst_clsf_cd std_idst_clsf_cd_name idx_bztp_lcls_cd_name "
        "idx_bztp_mcls_cd_name idx_bztp_scls_cd_name ocr_no crfd_item_yn elec_scty_yn issu_istt_cd "
        "etf_chas_erng_rt_dbnb etf_etn_ivst_heed_item_yn stln_int_rt_dvsn_cd frnr_psnl_lmt_rt "
        "lstg_rqsr_issu_istt_cd lstg_rqsr_item_cd trst_istt_issu_istt_cd cptt_trad_tr_psbl_yn nxt_tr_stop_yn"
    ),
)
TRS: tuple[Tr, ...] = (
    PRICE,
    DAILY_PRICE,
    DAILY,
    MINUTES_TODAY,
    MINUTES_PAST,
    INDEX_DAILY,
    INVESTORS,
    HOLIDAYS,
    STOCK_INFO,
)

STAMP = pa.timestamp("us", tz="UTC")

# Rows as parse_* returns them and render_* takes them, newest first. NaN and null: not known (KIS sends 0 or blank).
DAILY_ROWS = pa.schema(
    [
        ("date", pa.date32()),
        ("ts", STAMP),  # scheduled close of the day
        ("open", pa.float64()),  # KRW; NaN on a day without a trade
        ("high", pa.float64()),
        ("low", pa.float64()),
        ("close", pa.float64()),  # on a day without a trade the last known price
        ("volume", pa.float64()),  # shares
        ("turnover", pa.float64()),  # KRW, null where unknown
        ("base", pa.float64()),  # KRW, price that the day's change and limits are measured from: close - prdy_vrss
        ("sign", pa.int8()),  # 1 upper limit, 2 up, 3 flat, 4 lower limit, 5 down, 0 blank
        ("lock", pa.string()),  # flng_cls_code: 00 none, 01 ex-rights, 02 ex-dividend, ...
        ("ratio", pa.float64()),  # prtt_rate: base price / previous close in per cent, 0 normally
        ("untraded", pa.bool_()),  # mod_yn: no trade that day
        ("reason", pa.string()),  # revl_issu_reas: 01 spin-off, 02 capital reduction, 03 long halt, ...
    ]
)
MINUTE_ROWS = pa.schema(
    [
        ("date", pa.date32()),
        ("ts", STAMP),  # end of the minute
        ("open", pa.float64()),
        ("high", pa.float64()),
        ("low", pa.float64()),
        ("close", pa.float64()),
        ("volume", pa.float64()),  # shares of the minute
        ("cumulative", pa.float64()),  # KRW turned over since the opening, up to and including the minute
    ]
)
INDEX_ROWS = pa.schema(
    [
        ("date", pa.date32()),
        ("ts", STAMP),
        ("open", pa.float64()),  # index points, two decimals
        ("high", pa.float64()),
        ("low", pa.float64()),
        ("close", pa.float64()),
        ("volume", pa.float64()),  # thousand shares
        ("turnover", pa.float64()),  # million KRW
    ]
)
INVESTOR_ROWS = pa.schema(
    [("date", pa.date32()), ("ts", STAMP), ("close", pa.float64()), ("change", pa.float64()), ("sign", pa.int8())]
    + [(name, pa.float64()) for name in FLOWS.values()]  # shares and million KRW, null until the day's close
)
HOLIDAY_ROWS = pa.schema(
    [("date", pa.date32()), ("weekday", pa.int8())]  # 1 Sunday ... 7 Saturday
    + [(name, pa.bool_()) for name in ("business", "trading", "open", "settlement")]
)

# What parse_price returns under other names than KIS's.
QUOTE = {
    "stck_prpr": "close",
    "stck_oprc": "open",
    "stck_hgpr": "high",
    "stck_lwpr": "low",
    "stck_sdpr": "base",
    "stck_mxpr": "upper",
    "stck_llam": "lower",
    "acml_vol": "volume",
    "acml_tr_pbmn": "turnover",
    "lstn_stcn": "shares",
    "aspr_unit": "tick",
}
MARKETS = {"STK": "KOSPI", "KSQ": "KOSDAQ", "KNX": "KONEX"}
KINDS = {
    "ST": "stock",
    "MF": "fund",
    "RT": "reit",
    "IF": "fund",
    "DR": "dr",
    "EW": "elw",
    "EF": "etf",
    "EN": "etn",
    "FS": "stock",
}
