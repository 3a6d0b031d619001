"""The rules of the house that grep can check. Each yields (path, line, rule, what to do instead).

Usage: rules.py ROOT BUILD [--notes]. Prints 'file:line: rule: use X instead' and ends with 1 if any."""
import fnmatch
import os
import re
import sys

import sources

HERE = os.path.dirname(os.path.abspath(__file__))
FILE_CAP, FILE_GOAL = 1000, 600
FUNCTION_CAP, FUNCTION_GOAL = 100, 60
HEADER_GOAL = 150


def table(name):
    """The lines of a table, without comments."""
    with open(os.path.join(HERE, name)) as f:
        return [line.rstrip('\n') for line in f if line.strip() and not line.startswith('#')]


def matches(path, patterns):
    return any(fnmatch.fnmatch(path, p) for p in patterns)


def under(path, folder):
    return path == folder or path.startswith(folder + '/')


# --- includes ---------------------------------------------------------------------------------------

def read_levels():
    return {words[0]: words[1:] for words in (line.split() for line in table('levels.txt'))}


def level_of(path, levels):
    """The longest folder (or file) of the table that 'path' is under."""
    return max((f for f in levels if under(path, f)), key=len, default=None)


def check_level(source, levels):
    level = level_of(source.path, levels)
    if level is None:
        yield 1, 'level', 'a folder of tests/lint/levels.txt: this one is not in it'
        return
    for line, kind, what in source.includes():
        if kind != '"' or '/' not in what or level_of(what, levels) == level:
            continue
        if not any(under(what, allowed) for allowed in levels[level]):
            yield line, 'level', f'no "{what}" in {level}: includes go down (design §3, tests/lint/levels.txt)'


def check_rooted(source, root, build):
    for line, kind, what in source.includes():
        if kind != '"':
            continue
        if '/' not in what or what.startswith(('../', './')):
            yield line, 'rooted-include', f'the path from the top of the tree instead of "{what}"'
        elif what.startswith('gen/'):
            if os.path.isdir(os.path.join(root, build, 'gen')) and not os.path.exists(os.path.join(root, build, what)):
                yield line, 'rooted-include', f'a header that is generated instead of "{what}"'
        elif not os.path.exists(os.path.join(root, what)):
            yield line, 'rooted-include', f'a header that exists instead of "{what}"'


def check_own_header(source, root):
    header = source.path[:-2] + '.h'
    if not source.path.endswith('.c') or not os.path.exists(os.path.join(root, header)):
        return
    first = next(source.includes(), None)
    if first is None or first[2] != header:
        yield (first[0] if first else 1), 'own-header-first', f'#include "{header}" before any other'


def check_guard(source):
    """A header includes itself once: SOME_FOLDER_NAME_H."""
    guard = re.sub(r'[^A-Z0-9]', '_', source.path.upper())
    if source.path.endswith('.h') and f'#ifndef {guard}\n#define {guard}\n' not in source.text:
        yield 1, 'include-guard', f'#ifndef {guard}'


# --- foreign libraries --------------------------------------------------------------------------------

def check_libraries(all_sources):
    rows = [line.split() for line in table('libraries.txt')]
    users = {row[0]: {} for row in rows}
    for source in all_sources:
        if not source.is_c or under(source.path, 'tests'):
            continue
        for line, kind, what in source.includes():
            row = next((r for r in rows if kind == '<' and fnmatch.fnmatch(what, r[0])), None)
            if row is None:
                continue
            if not matches(source.path, row[2:]):
                yield source.path, line, 'library', f'<{what}> only in {" ".join(row[2:]) or "tests"}'
            else:
                users[row[0]].setdefault(source.path, line)
    for row in rows:
        if len(users[row[0]]) > int(row[1]):
            for path, line in users[row[0]].items():
                yield path, line, 'library', f'<{row[0]}> in at most {row[1]} file(s), behind a header of ours'


# --- calls --------------------------------------------------------------------------------------------

OPENERS = re.compile(r'(?<![\w.>])(open|openat|socket|socketpair|pipe2|accept4|dup3|eventfd|epoll_create1|memfd_create|'
                     r'timerfd_create|signalfd|inotify_init1|mkostemp)\s*\(')
AUTOMATIC = re.compile(r'\bAUTO_(FD|FREE|ARENA|TEXT)\b[^;=(){}]*;')


def read_banned():
    rows = []
    for line in table('banned.txt'):
        names, rest = line.split(None, 1)
        words = rest.split()
        where = []
        while words and (words[0] == '-' or '/' in words[0]):
            where.append(words.pop(0))
        rows.append((re.compile(r'(?<![\w.>])(' + names + r')\s*\('), where, ' '.join(words)))
    return rows


def is_call(source, match):
    """False for a declaration or definition of that name: 'void free(', 'int (*free)('."""
    before = source.body[:match.start()].rstrip(' \t')
    word = re.search(r'(\w+|[*])$', before)
    if word is None or before.endswith('\n'):
        return True
    return word.group() in ('return', 'else', 'do', 'case') or (word.group() == '*' and not re.search(r'\w\s*\*+$', before))


def excused(source, line):
    return 'lint:' in source.lines[line - 1]


def check_banned(source, banned):
    for names, where, instead in banned:
        if matches(source.path, where):
            continue
        for m in names.finditer(source.body):
            line = source.line_of(m.start())
            if is_call(source, m) and not excused(source, line):
                yield line, 'banned-call', f'{m.group(1)}: {instead}'


def arguments(text, start):
    """The text between the bracket at 'start' and its partner."""
    depth = 0
    for i in range(start, min(len(text), start + 2000)):
        depth += (text[i] == '(') - (text[i] == ')')
        if depth == 0:
            return text[start + 1:i]
    return ''


def check_cloexec(source):
    for m in OPENERS.finditer(source.body):
        line = source.line_of(m.start())
        if is_call(source, m) and 'CLOEXEC' not in arguments(source.body, m.end() - 1) and not excused(source, line):
            yield line, 'cloexec', f'{m.group(1)}(… O_CLOEXEC or its like …): children inherit it otherwise'
    for m in re.finditer(r'(?<![\w.>])f(?:re|d)?open\s*\(', source.body):
        given = arguments(source.text, m.end() - 1)
        line = source.line_of(m.start())
        if 'fdopen' not in m.group() and not re.search(r'"[rwa]b?\+?e', given) and not excused(source, line):
            yield line, 'cloexec', 'fopen(…, "re"), or file_read (rpc/base/fd.h)'


def check_strtol(source):
    for m in re.finditer(r'(?<![\w.>])(strto(?:l|ll|ul|ull|imax|umax))\s*\(', source.body):
        line = source.line_of(m.start())
        near = '\n'.join(source.lines[max(0, line - 6):line])
        if 'errno = 0' not in near and not under(source.path, 'tests') and not excused(source, line):
            yield line, 'banned-call', f'text_to_int or text_to_uint (rpc/base/text.h) instead of {m.group(1)}'


def check_words(source):
    for m in re.finditer(r'\bgoto\b', source.body):
        yield source.line_of(m.start()), 'goto', 'CLEANUP, the undo stack, or a function of its own'
    for m in re.finditer(r'\btypedef\s+(struct|union|enum)\b[^;(]*[;{]', source.body):
        yield source.line_of(m.start()), 'typedef', f'{m.group(1)} name, spelled out'
    for m in AUTOMATIC.finditer(source.body):
        yield source.line_of(m.start()), 'uninitialised', f'AUTO_{m.group(1)} with an initialiser: it is released at every return'


# --- files ----------------------------------------------------------------------------------------------

BAD_NAMES = {'util', 'utils', 'misc', 'common', 'helper', 'helpers'}
MARKS = re.compile(r'\b(TO[D]O|FIX[M]E|X[X]X|HAC[K])\b')
MACHINE = re.compile(r'(?<![\w.])/w[o]rk/')


def check_size(source):
    n = len(source.lines) - (source.lines[-1] == '')
    if source.path.endswith(('.c', '.h', '.py', '.sh')):
        if n > FILE_CAP:
            yield 1, 'file-size', f'{n} lines: split it, the cap is {FILE_CAP}'
        elif n > FILE_GOAL:
            yield 1, 'note', f'file of {n} lines, the goal is {FILE_GOAL}'
        elif source.path.endswith('.h') and n > HEADER_GOAL:
            yield 1, 'note', f'header of {n} lines, the goal is {HEADER_GOAL}'


def check_functions(source):
    for line, name, n in source.functions():
        if n > FUNCTION_CAP:
            yield line, 'function-size', f'{name} has {n} lines: split it, the cap is {FUNCTION_CAP}'
        elif n > FUNCTION_GOAL:
            yield line, 'note', f'{name} has {n} lines, the goal is {FUNCTION_GOAL}'


def check_name(source):
    for part in source.path.split('/'):
        if BAD_NAMES & set(re.split(r'[_.\-]', part.lower())):
            yield 1, 'name', f'the noun it implements instead of "{part}"'


def check_text(source):
    for number, line in enumerate(source.lines, 1):
        mark = MARKS.search(line)
        if mark:
            yield number, 'mark', f'an issue in the tracker instead of {mark.group(1)}'
        if MACHINE.search(line):
            yield number, 'machine-path', 'a path that exists on other machines too'


# --- all of them ----------------------------------------------------------------------------------------

def check_all(root, build):
    everything = [s for s in sources.load(root) if s.is_text]
    levels, banned = read_levels(), read_banned()
    for source in everything:
        found = [check_name(source), check_size(source), check_text(source)]
        if source.is_c:
            found += [check_level(source, levels), check_rooted(source, root, build), check_own_header(source, root),
                      check_guard(source), check_banned(source, banned), check_cloexec(source), check_strtol(source),
                      check_words(source), check_functions(source)]
        for results in found:
            for line, rule, instead in results:
                yield source.path, line, rule, instead
    yield from check_libraries(everything)


def main():
    root, build = sys.argv[1], sys.argv[2]
    notes = '--notes' in sys.argv
    bad = 0
    for path, line, rule, instead in sorted(set(check_all(root, build))):
        if rule != 'note':
            bad += 1
            print(f'{path}:{line}: {rule}: use {instead}')
        elif notes:
            print(f'{path}:{line}: note: {instead}')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
