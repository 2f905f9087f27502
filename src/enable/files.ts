import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'

const timeoutMs = 60_000

/** Undefined where there is no such file. Throws `NOT_TEXT` for what is not UTF-8, which would be damaged. */
export async function readText(machine: Machine, path: string, signal?: AbortSignal): Promise<string | undefined> {
  const script = '[ -e "$1" ] || exit 3; cat -- "$1"'
  const { stdout, exit, stderr } = await run(machine, ['sh', '-c', script, 'sh', path], {
    allowFailure: true,
    timeoutMs,
    signal,
  })
  if (exit.code === 3) return undefined
  if (exit.code !== 0) throw failed(path, 'read', stderr)
  if (stdout.includes('\ufffd'))
    throw new NestvmError('NOT_TEXT', `${path} is not text in UTF-8, so it is not changed`, { details: { path } })
  return stdout
}

/**
 * Gives a file another content, by another name and a rename: a reader sees the old one or the new one. Owner and mode
 * stay, and a symbolic link goes on leading to it. Throws `NEEDS_ROOT` and `WRITE_FAILED`.
 */
export async function writeText(machine: Machine, path: string, text: string, signal?: AbortSignal): Promise<void> {
  await change(machine, writeScript, path, text, signal)
}

/** No error where there is no such file. */
export async function removeFile(machine: Machine, path: string, signal?: AbortSignal): Promise<void> {
  await change(machine, 'rm -f -- "$1"', path, '', signal)
}

async function change(
  machine: Machine,
  script: string,
  path: string,
  input: string,
  signal?: AbortSignal,
): Promise<void> {
  const result = await run(machine, ['sh', '-c', script, 'sh', path], { input, allowFailure: true, timeoutMs, signal })
  if (result.exit.code !== 0) throw failed(path, 'changed', result.stderr)
}

/** A new file is for everyone to read, as those around it are. */
const writeScript = `set -e
umask 022
file=$1
[ ! -L "$file" ] || file=$(readlink -f "$file")
dir=$(dirname "$file")
mkdir -p "$dir"
temporary=$(mktemp "$dir/.\${file##*/}.XXXXXX")
trap 'rm -f "$temporary"' EXIT
if [ -e "$file" ]; then cp -p "$file" "$temporary"; else chmod 644 "$temporary"; fi
cat > "$temporary"
sync "$temporary" 2>/dev/null || sync
mv -f "$temporary" "$file"
if command -v restorecon > /dev/null; then restorecon "$file" || true; fi
`

function failed(path: string, what: string, stderr: string): NestvmError {
  const why = stderr.trim().split('\n').at(-1) ?? ''
  if (/permission denied/i.test(why)) {
    return new NestvmError('NEEDS_ROOT', `${path} cannot be ${what}: ${why}`, {
      hint: 'sudo nestvm enable',
      details: { path },
    })
  }
  return new NestvmError('WRITE_FAILED', `${path} cannot be ${what}: ${why}`, { details: { path } })
}
