"""The fault points of the datapath, as the code has them."""
import glob
import os
import re

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# What none of the sweep's operations passes: why.
ELSEWHERE = [
    (r"sr\.(create|destroy|attach|detach)$", "of whole SRs"),
    (r"sr\.(scan|stat|vdi_stat)$", "looked at in the background all the time"),
    (r"sr\.(vdi_cbt|vdi_changed_blocks|vdi_data_destroy|vdi_clone|vdi_revert|vdi_resize)$", "verbs that are not in the sweep"),
    (r"sr\.file\.(clone|revert|cbt|resize)\.", "the same"),
    (r"sr\.vdi_deactivate$", "of a guest that goes to another host"),
    (r"sr\.file\.destroy\.base$", "a base that is destroyed by name"),
    (r"sr\.file\.clean\.grow$", "a child that is larger than its base"),
    (r"sr\.file\.snapshot\.share$", "needs a file system that shares blocks"),
    (r"sr\.file\.snapshot\.log$", "needs tracking of changed blocks"),
    (r"sr\.(lvm|mount)\.", "other drivers"),
]


def read(path):
    with open(path) as f:
        return f.read()


def steps(names, families):
    """step(x, "name") of a file whose steps belong to several operations."""
    return {f"sr.file.{family}.{name}" for family in families for name in names}


def daemon_points():
    found = set()
    for path in glob.glob(os.path.join(ROOT, "storage", "*.c")) + [os.path.join(ROOT, "xapi/migrate/disk_move.c")]:
        text = read(path)
        found |= set(re.findall(r'fault_hit\("([a-z0-9_.-]+)"\)', text))
        found |= {name for word in re.findall(r'STORAGE_FAULT\(([^;]*?)\)', text) for name in re.findall(r'"([a-z0-9_.-]+)"', word)}
        found |= {"sr." + name for name in re.findall(r'\.name = "([a-z_]+)"', text)}
    table = re.search(r"static const struct step \{.*?\n\};", read(os.path.join(ROOT, "xapi/migrate/disk_move.c")), re.S).group(0)
    found |= {"disk.move." + name for name in re.findall(r'\{ "([a-z]+)"', table)}
    for path in glob.glob(os.path.join(ROOT, "storage/drivers/*.c")):
        text, name = read(path), os.path.basename(path)
        for family, operation, words in re.findall(r'driver_step\([^,]+, "(\w+)", ("?\w+[^,]*), ([^;]*)\)', text):
            if operation.startswith('"'):
                found |= {f"sr.{family}.{operation.strip(chr(34))}.{w}" for w in re.findall(r'"([a-z-]+)"', words)}
        one = re.findall(r'step\((?:f|k|&k), "([a-z-]+)"\)', text)
        if name == "image_fork.c":
            found |= steps(one, ("snapshot", "clone", "revert"))
        elif name == "raw_copy.c":
            found |= steps(one, ("snapshot", "clone", "revert"))
        found |= {f"sr.file.{operation}.{word}" for operation, word in re.findall(r'[^_]step\(c, "([a-z]+)", "([a-z-]+)"\)', text)}
    return found


def tapd_points():
    found = set()
    for path in glob.glob(os.path.join(ROOT, "storage/tapd/*.c")):
        found |= set(re.findall(r'fault_hit\("([a-z0-9_.-]+)"\)', read(path)))
        if path.endswith("fault_layer.c"):
            found |= set(re.findall(r'"((?:tapd|target)\.[a-z]+)"', read(path)))
    return found


def clearing_up(point):
    """Of the thread that coalesces, at any time."""
    return re.match(r"sr\.clean$|sr\.merge\.|sr\.file\.(clean|adopt|fold)\.", point) is not None


def elsewhere(point):
    return any(re.match(pattern, point) for pattern, _ in ELSEWHERE)
