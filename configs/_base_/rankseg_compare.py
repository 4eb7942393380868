_base_ = "./mmseg_package.py"

# Keeps argmax's labels beside RankSEG's, so that one run scores both; score it with MultiLevelIoUMetric.
rankseg = dict(metric="dice", compare=True)
