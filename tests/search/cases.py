"""What the search has found: recipes that broke a law once, and faults that are not mended yet."""

from __future__ import annotations

import re
from dataclasses import dataclass

from laws import Failure


@dataclass(frozen=True, slots=True)
class Mended:
    """A recipe that broke a law."""

    name: str
    law: str
    recipe: str


@dataclass(frozen=True, slots=True)
class Known:
    """A fault that is there: how it shows, and a recipe that has it."""

    name: str
    law: str
    pattern: str
    reason: str
    recipe: str


MENDED: tuple[Mended, ...] = (
    Mended(
        "a gain behind channels in another order",
        "sound",
        '["nhwc", 18785, "float32", 21, ["computed shapes", "constant nodes", "gemm", "symbolic batch", "transposed", '
        '"two outputs", "value info"], [["convolution", 21813], ["some_channels", 8077], ["rms_norm", 27576]]]',
    ),
    Mended(
        "units behind a translation",
        "every gauge",
        '["tokens", 47262, "float32", 17, [], [["experts", 7688]]]',
    ),
    Mended(
        "dead units behind a translation",
        "every gauge",
        '["signal", 5670, "float32", 17, [], [["unit_length", 37826], ["twice", 29963], ["unfolded", 64739], '
        '["perceptron", 42384]]]',
    ),
    Mended(
        "a step without results",
        "ordinary",
        '["flat", 3, "float32", 23, [], [["call com.microsoft.MatMulInteger16", 1], ["call StringConcat", 1]]]',
    ),
    Mended(
        "branches behind what is not known",
        "sound",
        '["flat", 35972, "float32", 23, [], [["call LayerNormalization", 60764]]]',
    ),
    Mended(
        "recurrences without a first output",
        "ordinary",
        '["flat", 43277, "float32", 23, [], [["call RNN", 464], ["call GRU", 54934]]]',
    ),
    Mended(
        "a translation of one number",
        "ordinary",
        '["tokens", 59378, "float32", 17, [], [["call com.microsoft.DynamicQuantizeLSTM", 34028]]]',
    ),
    Mended(
        "weights cast to whole numbers",
        "sound",
        '["steps", 20780, "float32", 23, ["bias to conv", "symbolic batch", "transposed"], [["fused", 40640], '
        '["loop", 34265], ["call CastLike", 19719]]]',
    ),
    Mended(
        "outputs that answer to large inputs by rounding alone",
        "sound",
        '["tokens", 20126, "float32", 14, ["gemm", "short", "symbolic batch", "transposed", "value info"], '
        '[["instance_norm", 47600], ["batch_norm", 59002]]]',
    ),
    Mended(
        "sums over nothing",
        "sound",
        '["flat", 24474, "float32", 23, ["bias first", "bias to conv", "gemm", "noise", "symbolic batch", '
        '"transposed", "two outputs", "value info"], '
        '[["call Split", 58443], ["flattened", 37090], ["same_convolution", 16607]]]',
    ),
    Mended(
        "units in copies that any matrix mixes",
        "every gauge",
        '["steps", 49116, "float32", 17, [], [["call com.microsoft.BiasDropout", 22185]]]',
    ),
    Mended(
        "a cache that is written into a buffer",
        "sound",
        '["tokens", 56558, "float32", 17, [], [["call com.microsoft.GroupQueryAttention", 52064]]]',
    ),
    Mended(
        "a constant that is zero in another gauge",
        "exactly",
        '["nhwc", 51575, "float32", 17, [], [["linear", 24820], ["batch_norm", 52482]]]',
    ),
    Mended(
        "an audit of sums over nothing",
        "ordinary",
        '["steps", 20286, "float32", 23, [], [["call Split", 38384]]]',
    ),
    Mended(
        "outputs that are maps",
        "every gauge",
        '["flat", 24822, "float32", 15, [], [["call ai.onnx.ml.ZipMap", 55012]]]',
    ),
    Mended(
        "constants in windows with places of their own",
        "exactly",
        '["flat", 20632, "float32", 17, [], '
        '[["unfolded", 65240], ["scaled", 12186], ["transposed_convolution", 63299]]]',
    ),
    Mended(
        "equal rows that each unit of another space reads",
        "exactly",
        '["steps", 42462, "float32", 17, [], [["experts", 1697], ["token_mixing", 39142]]]',
    ),
    Mended(
        "entries of an input that only dead units read",
        "exactly",
        '["nhwc", 12522, "float32", 17, [], [["convolution", 3496]]]',
    ),
    Mended(
        "keys with a weight for each position",
        "every gauge",
        '["tokens", 52422, "float32", 17, [], [["call com.microsoft.MultiHeadAttention", 16506]]]',
    ),
    Mended(
        "a gain that all copies share",
        "ordinary",
        '["tokens", 29669, "float32", 17, [], [["call SimplifiedLayerNormalization", 56363]]]',
    ),
    Mended(
        "constants that stand for a row of others",
        "exactly",
        '["tokens", 64778, "float32", 17, ["two outputs"], [["one_of_a_list", 47610], ["token_mixing", 53311]]]',
    ),
    Mended(
        "channels in another order beside themselves",
        "sound",
        '["tokens", 29776, "float32", 23, [], [["adapter", 25582], ["beside", 6178, [["some_channels", 24598]], []]]]',
    ),
    Mended(
        "outputs that answer by less than the tolerance",
        "sound",
        '["signal", 28234, "float32", 21, ["bias to conv", "computed shapes", "noise", "value info"], '
        '[["beside", 1348, [["layer_norm", 25776]], [["rearranged", 18239], ["dynamic_levels", 14603]]], '
        '["excite", 44067], ["local_response", 9176], ["instance_norm", 3262]]]',
    ),
    Mended(
        "dropout in training",
        "sound",
        '["flat", 5175, "float32", 23, [], [["call Dropout", 56089]]]',
    ),
    Mended(
        "what readers do not see, by their rounding",
        "every gauge",
        '["tokens", 12312, "float16", 17, ["transposed"], [["experts", 39174]]]',
    ),
    Mended(
        "what readers see little of, by their rounding",
        "every gauge",
        '["signal", 5, "float32", 17, ["bias to conv", "decomposed", "noise", "transposed", "two outputs"], '
        '[["regrouped", 5], ["perceptron", 5]]]',
    ),
    Mended(
        "constants that a table of rotations turns",
        "sound",
        '["steps", 56242, "float32", 23, [], [["call RotaryEmbedding", 57475]]]',
    ),
    Mended(
        "a number beyond the border of a crop",
        "sound",
        '["steps", 15933, "float32", 23, [], [["call LayerNormalization", 60090], ["call Resize", 7077]]]',
    ),
    Mended(
        "a repair behind a reshape of what is read",
        "repaired",
        '["steps", 21029, "float32", 23, [], [["call LSTM", 8838], ["call Sign", 51433]]]',
    ),
    Mended(
        "a repair beside a recurrence without a first output",
        "repaired",
        '["steps", 22045, "float32", 23, [], [["call GRU", 29225]]]',
    ),
    Mended(
        "elements of a sequence that a body maps",
        "silent",
        '["tokens", 56563, "float64", 18, [], [["mapped_list", 41455], ["first_token", 10671]]]',
    ),
    Mended(
        "a reading weight of 1e-20 behind a square",
        "exactly",
        '["nhwc", 15749, "float32", 17, ["transposed"], [["excite", 6010]]]',
    ),
    Mended(
        "a bias that may change alike at all places of a window",
        "every gauge",
        '["flat", 5901, "float32", 23, ["noise", "short"], [["unfolded", 64516], ["fused_convolution", 18041], '
        '["talking", 24789], ["group_norm", 53936], ["first_token", 49721]]]',
    ),
    Mended(
        "equal units that are constant in the mean",
        "exactly",
        '["tokens", 19457, "float32", 17, ["bias to conv", "computed shapes", "constant nodes", "decomposed", "gemm", '
        '"noise", "short", "two outputs"], [["perceptron", 16913], ["rms_norm", 35756], ["instance_norm", 20303], '
        '["group_norm", 64235], ["ending", 7886, [["rest_of_a_list", 47132]]], ["instance_norm", 15862]]]',
    ),
    Mended(
        "ranks over units that each have an order of their own",
        "every gauge",
        '["tokens", 8596, "float32", 17, [], [["call Add", 65399]]]',
    ),
    Mended(
        "rows of dead units in a space of low rank",
        "every gauge",
        '["signal", 17637, "bfloat16", 23, ["computed shapes", "constant nodes", "decomposed", "gemm", "short"], '
        '[["flattened", 52628], ["linear", 37638], ["beside", 10307, [["gated", 21099]], [["instance_norm", 20853], '
        '["local_response", 5416]]], ["layer", 32345], ["linear_attention", 35134], ["first_token", 5984]]]',
    ),
    Mended(
        "places of the largest in a type that came later",
        "sound",
        '["tokens", 21370, "bfloat16", 22, ["noise", "symbolic batch", "two outputs"], [["cut_weights", 61576], '
        '["positive", 22574], ["memory", 10755]]]',
    ),
    Mended(
        "a mean of what was normalised, of inputs that are the same at all places",
        "sound",
        '["signal", 12129, "float32", 20, ["bias to conv", "computed shapes", "decomposed", "noise", "transposed", '
        '"value info"], [["batch_norm", 54599], ["linear_attention", 33760], ["instance_norm", 17749]]]',
    ),
    Mended(
        "a norm of single numbers behind quantised inputs",
        "sound",
        '["flat", 10178, "float32", 20, ["decomposed", "gemm", "short", "two outputs", "value info"], '
        '[["dynamic_levels", 18263], ["rearranged", 28477], ["largest_of_windows", 29262], ["instance_norm", 51061], '
        '["einsum", 8838]]]',
    ),
    Mended(
        "units beside a branch that a narrow layer reads",
        "exactly",
        '["signal", 62267, "float32", 23, ["bias to conv", "constant nodes", "gemm", "short", "symbolic batch"], '
        '[["narrow", 24626], ["residual", 27647, [["ending", 3185, [["chained", 34907]]], ["bare_readers", '
        "44048]]]]]",
    ),
    Mended(
        "dead units beside a branch that a narrow layer reads",
        "exactly",
        '["image", 32900, "float32", 17, ["computed shapes", "constant nodes", "decomposed", "noise", "symbolic '
        'batch", "two outputs"], [["choice", 61837], ["padded", 49285], ["same_convolution", 33107], ["narrow", '
        '6966], ["group_norm", 39024]]]',
    ),
    Mended(
        "equal units whose gain a layer holds",
        "exactly",
        '["image", 32936, "float16", 19, ["bias to conv", "gemm", "short", "symbolic batch", "value info"], '
        '[["gated", 1000], ["gain_beside", 57070]]]',
    ),
    Mended(
        "constants in groups of channels that were shuffled",
        "exactly",
        '["nhwc", 5890, "float32", 16, ["computed shapes", "gemm", "short", "symbolic batch", "transposed", "two '
        'outputs"], [["fused", 6191], ["transposed_convolution", 62624], ["rest_of_a_list", 677], ["regrouped", '
        '45975], ["layer", 24380]]]',
    ),
    Mended(
        "equal units of which a tree splits one",
        "exactly",
        '["steps", 42832, "float32", 17, [], [["call ai.onnx.ml.TreeEnsemble", 19435]]]',
    ),
    Mended(
        "equal units behind thresholds",
        "exactly",
        '["steps", 3236, "float32", 17, [], [["call qonnx.custom_op.general.MultiThreshold", 36715]]]',
    ),
)
KNOWN: tuple[Known, ...] = ()


def known(failure: Failure) -> str | None:
    """Why a failure is expected, or None."""
    for one in KNOWN:
        if one.law == failure.law and re.search(one.pattern, failure.detail):
            return one.reason
    return None
