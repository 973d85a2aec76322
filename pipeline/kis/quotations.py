"""The quotation calls beside those that the ingestion uses, as tables in the form of `layouts.py`: trades, order book,
index minutes, flows by kind of investor, the product search, quotes of many issues and issues abroad.

Source of names and order: the official samples of koreainvestment/open-trading-api (chk_*.py) and the portal documents
carried there; the order of fields abroad is that of the documents' example answers. How many rows an index minute page
has is not known; it takes what a daily page takes.
"""

from pipeline.kis.layouts import INDEX_DAILY, QUOTATIONS, TRS, Tr

_ITEM = ("FID_COND_MRKT_DIV_CODE", "FID_INPUT_ISCD")
_CHANGE = "prdy_vrss prdy_vrss_sign"
MANY = 30  # symbols of one call of intstock-multprice


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


TRADES = Tr(
    name="inquire-ccnl",
    path=QUOTATIONS + "inquire-ccnl",
    tr_id="FHKST01010300",
    paper=True,
    max_rows=30,
    page_by="none",
    params=_ITEM,
    array="output",
    fields=_names(f"stck_cntg_hour stck_prpr {_CHANGE} cntg_vol tday_rltv prdy_ctrt"),
)
TRADES_OF_DAY = Tr(
    name="inquire-time-itemconclusion",
    path=QUOTATIONS + "inquire-time-itemconclusion",
    tr_id="FHPST01060000",
    paper=True,
    max_rows=30,
    page_by="hour",
    params=(*_ITEM, "FID_INPUT_HOUR_1"),
    array="output2",
    summary="output1",
    fields=_names(f"stck_cntg_hour stck_pbpr {_CHANGE} prdy_ctrt askp bidp tday_rltv acml_vol cnqn"),
    summary_fields=_names(f"stck_prpr {_CHANGE} prdy_ctrt acml_vol prdy_vol rprs_mrkt_kor_name"),
)


def _levels(*stems: str) -> tuple[str, ...]:
    return tuple(f"{stem}{level}" for stem in stems for level in range(1, 11))


# Two single objects: `summary` is the book, `array` the expected execution.
BOOK = Tr(
    name="inquire-asking-price-exp-ccn",
    path=QUOTATIONS + "inquire-asking-price-exp-ccn",
    tr_id="FHKST01010200",
    paper=True,
    max_rows=0,
    page_by="none",
    params=_ITEM,
    array="output2",
    summary="output1",
    fields=_names(
        "antc_mkop_cls_code stck_prpr stck_oprc stck_hgpr stck_lwpr stck_sdpr antc_cnpr antc_cntg_vrss_sign "
        "antc_cntg_vrss antc_cntg_prdy_ctrt antc_vol stck_shrn_iscd vi_cls_code"
    ),
    summary_fields=(
        "aspr_acpt_hour",
        *_levels("askp", "bidp", "askp_rsqn", "bidp_rsqn", "askp_rsqn_icdc", "bidp_rsqn_icdc"),
        *_names("total_askp_rsqn total_bidp_rsqn total_askp_rsqn_icdc total_bidp_rsqn_icdc ovtm_total_askp_icdc"),
        *_names("ovtm_total_bidp_icdc ovtm_total_askp_rsqn ovtm_total_bidp_rsqn ntby_aspr_rsqn new_mkop_cls_code"),
    ),
)
INDEX_MINUTES = Tr(
    name="inquire-time-indexchartprice",
    path=QUOTATIONS + "inquire-time-indexchartprice",
    tr_id="FHKUP03500200",
    paper=True,
    max_rows=INDEX_DAILY.max_rows,
    page_by="none",
    params=("FID_COND_MRKT_DIV_CODE", "FID_ETC_CLS_CODE", "FID_INPUT_ISCD", "FID_INPUT_HOUR_1", "FID_PW_DATA_INCU_YN"),
    array="output2",
    summary="output1",
    fields=_names(
        "stck_bsop_date stck_cntg_hour bstp_nmix_prpr bstp_nmix_oprc bstp_nmix_hgpr bstp_nmix_lwpr cntg_vol "
        "acml_tr_pbmn"
    ),
    summary_fields=INDEX_DAILY.summary_fields,
)

INSTITUTIONS = ("scrt", "ivtr", "pe_fund", "bank", "insu", "mrbn", "fund")  # which orgn is the sum of


def _both(stem: str) -> str:
    return f"{stem}_seln_vol {stem}_shnu_vol {stem}_seln_tr_pbmn {stem}_shnu_tr_pbmn"


INVESTORS_DAILY = Tr(
    name="investor-trade-by-stock-daily",
    path=QUOTATIONS + "investor-trade-by-stock-daily",
    tr_id="FHPTJ04160001",
    paper=False,
    max_rows=30,
    page_by="end_date",
    params=(*_ITEM, "FID_INPUT_DATE_1", "FID_ORG_ADJ_PRC", "FID_ETC_CLS_CODE"),
    array="output2",
    summary="output1",
    fields=_names(
        f"stck_bsop_date stck_clpr {_CHANGE} prdy_ctrt acml_vol acml_tr_pbmn stck_oprc stck_hgpr stck_lwpr "
        "frgn_ntby_qty frgn_reg_ntby_qty frgn_nreg_ntby_qty prsn_ntby_qty orgn_ntby_qty scrt_ntby_qty ivtr_ntby_qty "
        "pe_fund_ntby_vol bank_ntby_qty insu_ntby_qty mrbn_ntby_qty fund_ntby_qty etc_ntby_qty etc_corp_ntby_vol "
        "etc_orgt_ntby_vol frgn_reg_ntby_pbmn frgn_ntby_tr_pbmn frgn_nreg_ntby_pbmn prsn_ntby_tr_pbmn "
        "orgn_ntby_tr_pbmn scrt_ntby_tr_pbmn pe_fund_ntby_tr_pbmn ivtr_ntby_tr_pbmn bank_ntby_tr_pbmn "
        "insu_ntby_tr_pbmn mrbn_ntby_tr_pbmn fund_ntby_tr_pbmn etc_ntby_tr_pbmn etc_corp_ntby_tr_pbmn "
        f"etc_orgt_ntby_tr_pbmn {_both('frgn')} frgn_reg_askp_qty frgn_reg_bidp_qty frgn_reg_askp_pbmn "
        "frgn_reg_bidp_pbmn frgn_nreg_askp_qty frgn_nreg_bidp_qty frgn_nreg_askp_pbmn frgn_nreg_bidp_pbmn "
        f"{_both('prsn')} {_both('orgn')} {_both('scrt')} {_both('ivtr')} pe_fund_seln_tr_pbmn pe_fund_seln_vol "
        f"pe_fund_shnu_tr_pbmn pe_fund_shnu_vol {_both('bank')} {_both('insu')} {_both('mrbn')} {_both('fund')} "
        f"{_both('etc')} {_both('etc_orgt')} {_both('etc_corp')} bold_yn"
    ),
    summary_fields=_names(f"stck_prpr {_CHANGE} prdy_ctrt acml_vol prdy_vol rprs_mrkt_kor_name"),
)
_ENDS = {
    "_ntby_qty": ("net", "volume"),
    "_ntby_vol": ("net", "volume"),
    "_ntby_tr_pbmn": ("net", "turnover"),
    "_ntby_pbmn": ("net", "turnover"),
    "_seln_vol": ("sell", "volume"),
    "_shnu_vol": ("buy", "volume"),
    "_seln_tr_pbmn": ("sell", "turnover"),
    "_shnu_tr_pbmn": ("buy", "turnover"),
    "_askp_qty": ("sell", "volume"),
    "_bidp_qty": ("buy", "volume"),
    "_askp_pbmn": ("sell", "turnover"),
    "_bidp_pbmn": ("buy", "turnover"),
}
# field -> (kind of investor, net | buy | sell, volume | turnover)
FLOWS_DAILY: dict[str, tuple[str, str, str]] = {
    field: (field.removesuffix(end), *what)
    for field in INVESTORS_DAILY.fields
    for end, what in _ENDS.items()
    if field.endswith(end)
}

PRODUCT_INFO = Tr(
    name="search-info",
    path=QUOTATIONS + "search-info",
    tr_id="CTPF1604R",
    paper=False,
    max_rows=0,
    page_by="none",
    params=("PDNO", "PRDT_TYPE_CD"),
    summary="output",
    summary_fields=_names(
        "pdno prdt_type_cd prdt_name prdt_name120 prdt_abrv_name prdt_eng_name prdt_eng_name120 prdt_eng_abrv_name "
        "std_pdno shtn_pdno prdt_sale_stat_cd prdt_risk_grad_cd prdt_clsf_cd prdt_clsf_name sale_strt_dt sale_end_dt "
        "wrap_asst_type_cd ivst_prdt_type_cd ivst_prdt_type_cd_name frst_erlm_dt"
    ),
)
QUOTES_OF_MANY = Tr(
    name="intstock-multprice",
    path=QUOTATIONS + "intstock-multprice",
    tr_id="FHKST11300006",
    paper=False,
    max_rows=MANY,
    page_by="none",
    params=("FID_COND_MRKT_DIV_CODE_1", "FID_INPUT_ISCD_1"),  # ..._2 to ..._30 may follow
    array="output",
    fields=_names(
        "kospi_kosdaq_cls_name mrkt_trtm_cls_name hour_cls_code inter_shrn_iscd inter_kor_isnm inter2_prpr "
        "inter2_prdy_vrss prdy_vrss_sign prdy_ctrt acml_vol inter2_oprc inter2_hgpr inter2_lwpr inter2_llam "
        "inter2_mxpr inter2_askp inter2_bidp seln_rsqn shnu_rsqn total_askp_rsqn total_bidp_rsqn acml_tr_pbmn "
        "inter2_prdy_clpr oprc_vrss_hgpr_rate intr_antc_cntg_vrss intr_antc_cntg_vrss_sign "
        "intr_antc_cntg_prdy_ctrt intr_antc_vol inter2_sdpr"
    ),
)

_ABROAD = "/uapi/overseas-price/v1/quotations/"
_ISSUE = ("AUTH", "EXCD", "SYMB")
OVERSEAS_PRICE = Tr(
    name="overseas price",
    path=_ABROAD + "price",
    tr_id="HHDFS00000300",
    paper=True,
    max_rows=0,
    page_by="none",
    params=_ISSUE,
    summary="output",
    summary_fields=_names("rsym zdiv base pvol last sign diff rate tvol tamt ordy"),
)
OVERSEAS_DETAIL = Tr(
    name="overseas price-detail",
    path=_ABROAD + "price-detail",
    tr_id="HHDFS76200200",
    paper=False,
    max_rows=0,
    page_by="none",
    params=_ISSUE,
    summary="output",
    summary_fields=_names(
        "rsym zdiv curr vnit open high low last base pvol pamt uplp dnlp h52p h52d l52p l52d perx pbrx epsx bpsx shar "
        "mcap tomv t_xprc t_xdif t_xrat p_xprc p_xdif p_xrat t_rate p_rate t_xsgn p_xsng e_ordyn e_hogau e_icod e_parp "
        "tvol tamt etyp_nm"
    ),
)
OVERSEAS_DAILY = Tr(
    name="overseas dailyprice",
    path=_ABROAD + "dailyprice",
    tr_id="HHDFS76240000",
    paper=True,
    max_rows=100,
    page_by="end_date",
    params=(*_ISSUE, "GUBN", "BYMD", "MODP"),
    array="output2",
    summary="output1",
    fields=_names("xymd clos sign diff rate open high low tvol tamt pbid vbid pask vask"),
    summary_fields=_names("rsym zdiv nrec"),
)
OVERSEAS_MINUTES = Tr(
    name="overseas inquire-time-itemchartprice",
    path=_ABROAD + "inquire-time-itemchartprice",
    tr_id="HHDFS76950200",
    paper=False,
    max_rows=120,
    page_by="date_hour",
    params=(*_ISSUE, "NMIN", "PINC", "NEXT", "NREC", "FILL", "KEYB"),
    array="output2",
    summary="output1",
    fields=_names("tymd xymd xhms kymd khms open high low last evol eamt"),
    summary_fields=_names("rsym zdiv stim etim sktm ektm next more nrec"),
)
ALL = (
    *TRS,
    TRADES,
    TRADES_OF_DAY,
    BOOK,
    INDEX_MINUTES,
    INVESTORS_DAILY,
    PRODUCT_INFO,
    QUOTES_OF_MANY,
    OVERSEAS_PRICE,
    OVERSEAS_DETAIL,
    OVERSEAS_DAILY,
    OVERSEAS_MINUTES,
)
