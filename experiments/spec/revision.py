"""The revision of the training code: raised by hand whenever the same spec on the same data trains to other numbers.

1   everything before revisions were kept
2   parameters that no loss reaches stay as they are; loss terms of accumulated micro-batches share one denominator;
    probes and maps run the model in evaluation mode; eval/loss of segmentation is that of all samples as one
    batch; undefined values (precision without a truth, a mean over nothing) are NaN and no longer 0;
    the EMA does not count steps that fp16 leaves out; under bf16 and fp16 losses of segmentation are computed in fp32

`tests/lab/test_revision.py` fails when seeded curves change without a raise, and says what to do. Pure.
"""

REVISION = 2
FIRST = 1  # the revision of runs that were stored without one
