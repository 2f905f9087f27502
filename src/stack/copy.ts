import { once } from 'node:events'
import { posix } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { containerRoot } from '../container/machine.ts'
import type { ContainerRecord } from '../container/record.ts'
import type { Machine, Process } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import type { Context } from './context.ts'
import { runningRecord } from './record.ts'

/** Copies as `cp -a` would, between any two machines; either place is `PATH` here, or `MACHINE:PATH`. */
export async function copy(context: Context, source: string, destination: string): Promise<void> {
  const from = await locate(context, source)
  const to = await locate(context, destination)
  const path = posix.normalize(from.path)
  // Such a path names what is in the directory, as for cp: the directory itself gets no name.
  const contents = path === '/' || /(^|[:/])\.\.?\/*$|:$/.test(source)
  const [dir, name] = contents ? [path, '.'] : [posix.dirname(path), posix.basename(path)]
  const writer = await to.machine.spawn(['sh', '-c', receiveScript, 'sh', to.path, name])
  const received = ended(writer, destination)
  received.catch(() => {})
  const stop = new AbortController()
  try {
    const signal = AbortSignal.any([context.signal, stop.signal])
    const tar = ['tar', '-C', dir, '-cf', '-', `./${name}`]
    const reader = await from.machine.spawn(tar, { noInput: true, signal })
    reader.stdout.pipe(writer.stdin, { end: false })
    const sent = Promise.all([ended(reader, source), once(reader.stdout, 'end')])
    // Whichever fails first tells why.
    await Promise.all([sent.then(() => writer.stdin.end()), received])
  } catch (error) {
    stop.abort()
    await giveUp(writer)
    throw error
  }
}

/**
 * Unpacks beside the destination first: what fails half-way, or is told to stop, leaves nothing there. The end of the
 * input says that the sender has not failed. The sender is not trusted: no link that came from it, now or before, is
 * written through.
 */
const receiveScript = `destination=$1 name=$2 part=
trap '[ -z "$part" ] || rm -rf "$part"' EXIT
trap 'exit 1' HUP INT TERM
if [ -d "$destination" ]; then dir=$destination target=$destination/$name
else dir=$(dirname "$destination") target=$destination; fi
part=$(mktemp -d "$dir/.nestvm-cp.XXXXXX") || exit 1
tar -C "$part" -xf - && cat > /dev/null || exit 1
[ "$name" = . ] || [ ! -L "$target" ] || rm -f "$target"
if [ "$name" = . ] && [ ! -d "$target" ]; then mkdir "$target" || exit 1; fi
if [ ! -d "$target" ]; then mv -f "$part/$name" "$target"
elif [ -L "$part/$name" ] || [ ! -d "$part/$name" ]; then echo "$target is a directory" >&2; exit 1
else cp -a --remove-destination "$part/$name/." "$target/"; fi`

/** A shell runs its trap when the program that it waits for has ended, which the end of the input sees to. */
async function giveUp(writer: Process): Promise<void> {
  writer.kill()
  writer.stdin.end()
  await Promise.race([writer.exited, sleep(5000, undefined, { ref: false })]).catch(() => {})
  writer.kill('SIGKILL')
}

/** A path of this host that looks like `machine:path` has to begin with ./ or /. */
async function locate(context: Context, place: string): Promise<{ machine: Machine; path: string }> {
  const match = /^([a-z0-9][a-z0-9/-]*):(.*)$/.exec(place)
  if (!match?.[1]) return { machine: context.host, path: place }
  const record = await runningRecord(match[1])
  const machine = await context.guest(record)
  const path = match[2] || '.'
  return { machine, path: record.container ? await insideContainer(machine, record.container, path) : path }
}

/**
 * A path of the container as one of the guest. Links in it are followed as the container's processes would: an absolute
 * one leads to the container's root, not to the guest's. A link at its end is left to the copying.
 */
async function insideContainer(guest: Machine, { config }: ContainerRecord, path: string): Promise<string> {
  const absolute = posix.resolve(config.workdir, path) + (path.endsWith('/') ? '/' : '')
  const root = await containerRoot(guest)
  const { stdout } = await run(guest, ['sh', '-c', resolveScript, 'sh', root, absolute], { timeoutMs: 60_000 })
  return stdout.replace(/\n$/, '')
}

const resolveScript = `root=$1 rest=$2 done= links=0
while [ "$rest" ]; do
  part=\${rest%%/*}
  case $rest in */*) rest=\${rest#*/} more=1 ;; *) rest= more= ;; esac
  case $part in ''|.) continue ;; ..) done=\${done%/*}; continue ;; esac
  if [ "$more" ] && [ -L "$root$done/$part" ] && [ $links -lt 40 ]; then
    links=$((links + 1)) target=$(readlink "$root$done/$part")
    case $target in /*) done= ;; esac
    rest=$target/$rest
  else done=$done/$part; fi
done
echo "$root$done"`

async function ended({ stderr, stdout, exited }: Process, place: string): Promise<void> {
  let said = ''
  stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk).slice(-2000)
  })
  stdout.resume()
  const { code } = await exited
  if (code === 0) return
  throw new NestvmError('COPY_FAILED', `${place}: ${said.trim() || `copying ended with status ${code}`}`)
}
