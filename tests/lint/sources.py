"""What the rules look at: the files of the tree, and C with comments and strings blanked out."""
import os
import re
import subprocess

TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
DIRECTIVE = re.compile(r'^[ \t]*#(?:[^\n\\]|\\\n|\\.)*', re.M)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)


def blank(match):
    """The same text with everything but its line ends made blank."""
    return re.sub(r'[^\n]', ' ', match.group())


def blank_token(match):
    return blank(match) if match.group().startswith('/') else '"' + re.sub(r'[^\n]', ' ', match.group()[1:-1]) + '"'


class Source:
    """One file: .text as it is, .code without comments and strings (C only), .body also without directives."""

    def __init__(self, root, path):
        self.path = path
        self.is_c = path.endswith(('.c', '.h'))
        with open(os.path.join(root, path), 'rb') as f:
            raw = f.read()
        self.is_text = b'\0' not in raw[:8192]
        self.text = raw.decode('utf-8', 'replace') if self.is_text else ''
        self.lines = self.text.split('\n')
        if self.is_c:
            self.code = TOKEN.sub(blank_token, self.text)
            self.body = DIRECTIVE.sub(blank, self.code)

    def line_of(self, offset):
        return self.text.count('\n', 0, offset) + 1

    def includes(self):
        """(line, '<' or '"', what) of each include that is not in a comment."""
        for m in INCLUDE.finditer(self.text):
            if '#' in self.code[m.start():m.start(1)]:
                yield self.line_of(m.start(1)), m.group(1), m.group(2)

    def functions(self):
        """(line, name, number of lines from '{' to '}') of each function."""
        depth, start, head = 0, 0, 0
        for m in re.finditer(r'[{};]', self.body):
            at = m.start()
            if m.group() == '{':
                if depth == 0:
                    start, head_text = at, self.body[head:at]
                depth += 1
            elif m.group() == '}':
                depth = max(depth - 1, 0)
                if depth == 0:
                    name = re.search(r'\b(\w+)\s*\(', re.sub(r'\b__\w+__\s*\(\(.*?\)\)|\b(CLEANUP|PRINTF)\s*\([^)]*\)', '', head_text))
                    if name and '=' not in head_text:
                        yield self.line_of(start), name.group(1), self.body.count('\n', start, at) + 1
                    head = m.end()
            elif depth == 0:
                head = m.end()


def tracked(root):
    """Files in git and new ones that are not ignored; without git all files."""
    try:
        out = subprocess.run(['git', '-C', root, 'ls-files', '-co', '--exclude-standard'], check=True,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode()
        names = out.splitlines()
    except (OSError, subprocess.CalledProcessError):
        names = [os.path.relpath(os.path.join(d, f), root) for d, _, files in os.walk(root) for f in files]
    return sorted(n for n in set(names) if os.path.isfile(os.path.join(root, n)) and not os.path.islink(os.path.join(root, n)))


def load(root):
    return [Source(root, path) for path in tracked(root)]
