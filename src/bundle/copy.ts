import { basename, join } from 'node:path'
import { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Machine, Process } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { hostTools } from './architecture.ts'
import type { Progress } from './progress.ts'
import type { Tools } from './tools.ts'

/** A directory of this host whose name tells what is in it. */
export interface CopiedDirectory {
  dir: string
  /** Relative paths. */
  files: readonly { path: string; size: number }[]
  /** The name of the file that says what the others are: where it is, all is. */
  record: string
}

export interface CopyRequest {
  local: Machine
  remote: Machine
  /** Where the remote host has such directories. */
  remoteDir: string
  /** Of this host. */
  tools: Tools
  progress?: Progress
  signal: AbortSignal
}

/**
 * Copies a directory to another host where it is not there yet or not whole, and gives its path there. It shows under
 * its name only when it is whole. Throws `COPY_FAILED`, or the signal's reason.
 */
export async function ensureCopy(directory: CopiedDirectory, request: CopyRequest): Promise<string> {
  const there = join(request.remoteDir, basename(directory.dir))
  if (!(await isWhole(directory, there, request))) await copyDirectory(directory, request)
  return there
}

/** Whether every file is there and has its size, as for a directory of this host. */
async function isWhole({ files, record }: CopiedDirectory, dir: string, request: CopyRequest): Promise<boolean> {
  const { remote, signal } = request
  const paths = files.map(({ path }) => path)
  const script = 'cd "$1" 2>/dev/null && [ -f "$2" ] && shift 2 && ls -ln -- "$@"'
  const options = { env: { LC_ALL: 'C' }, timeoutMs: 60_000, allowFailure: true, signal }
  const { stdout, exit } = await run(remote, ['sh', '-c', script, 'sh', dir, record, ...paths], options)
  // MODE LINKS OWNER GROUP SIZE MONTH DAY TIME PATH
  const sizes = new Map(
    stdout.split('\n').map((line) => {
      const words = line.split(/\s+/)
      return [words.slice(8).join(' '), Number(words[4])] as const
    }),
  )
  return exit.code === 0 && files.every(({ path, size }) => sizes.get(path) === size)
}

async function copyDirectory(directory: CopiedDirectory, request: CopyRequest): Promise<void> {
  const { local, remote, remoteDir, tools, progress, signal } = request
  const { dir, files, record } = directory
  const name = basename(dir)
  const bytesTotal = files.reduce((sum, { size }) => sum + size, 0)
  const packer = await chooseCompressor(remote, signal)
  const receive = ['sh', '-c', receiveScript, 'sh', remoteDir, name, record, ...(packer ? [packer, '-dc'] : ['cat'])]
  const receiver = await remote.spawn(receive, { signal })
  receiver.stdout.resume()
  const paths = [...files.map(({ path }) => path), record].map((path) => `./${path}`)
  const sender = await local.spawn(['tar', '-C', dir, '-cf', '-', ...paths], { signal, noInput: true })
  const done = [outcome(sender), outcome(receiver)]
  let bytesDone = 0
  const count = new Transform({
    transform(chunk: Buffer, _, next) {
      bytesDone += chunk.length
      progress?.({
        phase: 'copy',
        label: `${name.slice(0, 40)} to ${remote.name}`,
        bytesDone: Math.min(bytesDone, bytesTotal),
        bytesTotal,
      })
      next(undefined, chunk)
    },
  })
  try {
    if (packer === undefined) await pipeline(sender.stdout, count, receiver.stdin, { signal })
    else {
      const compressor = await local.spawn([...tools.argv(packer), '-1', '-c'], { signal })
      done.push(outcome(compressor))
      await Promise.all([
        pipeline(sender.stdout, count, compressor.stdin, { signal }),
        pipeline(compressor.stdout, receiver.stdin, { signal }),
      ])
    }
  } catch {
    // Whoever broke the stream tells why, below.
  }
  const said = await Promise.all(done)
  signal.throwIfAborted()
  const failed = said.find(({ code }) => code !== 0)
  if (!failed && (await isWhole(directory, join(remoteDir, name), request))) return
  throw new NestvmError(
    'COPY_FAILED',
    `${name} was not copied to ${remote.name}: ${failed?.stderr || 'it is not whole'}`,
    {
      hint: `look for space in ${remoteDir} there, then try again`,
    },
  )
}

/** Waits for its input's end; a copy that broke off, of this or of an earlier time, is removed. */
const receiveScript = `dir=$1 name=$2 record=$3; shift 3
umask 077
mkdir -p "$dir" && cd "$dir" || exit 1
for part in .copy-*; do [ -d "$part" ] && ! kill -0 "\${part##*-}" 2> /dev/null && rm -rf "$part"; done
part=.copy-$$
trap 'rm -rf "$dir/$part"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$part" && "$@" | tar -C "$part" -xf - && [ -s "$part/$record" ] || { echo "it broke off" >&2; exit 1; }
if [ -s "$name/$record" ]; then old=.copy-$$.old; mv "$name" "$old"; fi
rm -rf "$name"
mv "$part" "$name"
[ -z "$old" ] || rm -rf "$old"`

/** The first that the other host has, too; the bundle brings them for this one. */
async function chooseCompressor(remote: Machine, signal: AbortSignal): Promise<string | undefined> {
  const known = ['zstd', 'lz4'].filter((name) => hostTools.programs.includes(name))
  const script = 'for name; do command -v "$name" > /dev/null && echo "$name"; done; true'
  const { stdout } = await run(remote, ['sh', '-c', script, 'sh', ...known], { timeoutMs: 30_000, signal })
  return stdout.split('\n').find((name) => known.includes(name))
}

async function outcome(program: Process): Promise<{ code: number | null; stderr: string }> {
  let stderr = ''
  program.stderr.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk).slice(-1000)
  })
  try {
    return { code: (await program.exited).code, stderr: stderr.trim() }
  } catch (error) {
    return { code: null, stderr: String(error) }
  }
}
