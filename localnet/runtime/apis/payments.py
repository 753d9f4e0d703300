"""TransactionPaymentApi, TransactionPaymentCallApi and AccountNonceApi: what an extrinsic costs, and which is next.

`length` is the encoded length the client states, prefix included; the quoted fee has no tip in it. A call that is free,
or an inherent, has no inclusion fee.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localnet.codec.scale import opaque
from localnet.rules import fees
from localnet.runtime import extrinsic as xt
from localnet.runtime.apis.registry import api
from localnet.runtime.framework import CallInfo
from localnet.runtime.runtime_call import split_call

if TYPE_CHECKING:
    from localnet.runtime.runtime import SpecRuntime


def _dispatch_info(rt: SpecRuntime, info: CallInfo, length: int, signed: bool = True) -> dict[str, Any]:
    return {
        "weight": {"ref_time": info.ref_time, "proof_size": info.proof_size},
        "class": info.dispatch_class,
        "partial_fee": rt.payment.fee(info, length) if signed else 0,
    }


def _fee_details(rt: SpecRuntime, info: CallInfo, length: int, tip: int, signed: bool = True) -> dict[str, Any]:
    if not signed or not info.pays:
        return {"inclusion_fee": None, "tip": tip}
    base = fees.weight_fee(fees.BASE_EXTRINSIC_REF_TIME)
    by_length = fees.RAO_PER_BYTE * length
    by_weight = rt.payment.fee(info, length) - base - by_length  # the parts add up to what is charged
    return {"inclusion_fee": {"base_fee": base, "len_fee": by_length, "adjusted_weight_fee": by_weight}, "tip": tip}


def _parse(rt: SpecRuntime, body: bytes) -> tuple[xt.Extrinsic, CallInfo]:
    extrinsic = xt.parse(opaque(body))
    return extrinsic, rt.call_info(*rt.decode_call(extrinsic.call))


@api("TransactionPaymentApi_query_info")
def query_info(rt: SpecRuntime, body: bytes, length: int) -> dict[str, Any]:
    extrinsic, info = _parse(rt, body)
    return _dispatch_info(rt, info, length, signed=extrinsic.who is not None)


@api("TransactionPaymentApi_query_fee_details")
def query_fee_details(rt: SpecRuntime, body: bytes, length: int) -> dict[str, Any]:
    extrinsic, info = _parse(rt, body)
    return _fee_details(rt, info, length, extrinsic.tip, signed=extrinsic.who is not None)


@api("TransactionPaymentCallApi_query_call_info")
def query_call_info(rt: SpecRuntime, call: Any, length: int) -> dict[str, Any]:
    return _dispatch_info(rt, rt.call_info(*split_call(call)), length)


@api("TransactionPaymentCallApi_query_call_fee_details")
def query_call_fee_details(rt: SpecRuntime, call: Any, length: int) -> dict[str, Any]:
    return _fee_details(rt, rt.call_info(*split_call(call)), length, tip=0)


@api("TransactionPaymentApi_query_weight_to_fee")
def query_weight_to_fee(rt: SpecRuntime, weight: dict[str, int]) -> int:
    return fees.weight_fee(weight["ref_time"])


@api("TransactionPaymentCallApi_query_weight_to_fee")
def query_call_weight_to_fee(rt: SpecRuntime, weight: dict[str, int]) -> int:
    return fees.weight_fee(weight["ref_time"])


@api("TransactionPaymentApi_query_length_to_fee")
def query_length_to_fee(rt: SpecRuntime, length: int) -> int:
    return fees.RAO_PER_BYTE * length


@api("TransactionPaymentCallApi_query_length_to_fee")
def query_call_length_to_fee(rt: SpecRuntime, length: int) -> int:
    return fees.RAO_PER_BYTE * length


@api("AccountNonceApi_account_nonce")
def account_nonce(rt: SpecRuntime, account: bytes) -> int:
    nonce: int = rt.system.Account[account]["nonce"]
    return nonce
