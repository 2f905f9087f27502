import { createHash } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import * as z from 'zod'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { kvmProbePath } from '../store/paths.ts'
import { readJson, writeFileAtomic } from '../store/write.ts'
import { type Probe, probes, stages } from './probe.ts'

export const answerSchema = z.object({
  usable: z.boolean(),
  /** KVM_OK, KVM_ABSENT, KVM_PERMISSION or KVM_UNUSABLE. */
  code: z.string(),
  /** A sentence for people: what was seen. */
  reason: z.string(),
  hint: z.string().optional(),
  /** Why guests on it cannot be hypervisors, where only trying tells. */
  nestingRefused: z.string().optional(),
  /** How long the tiny guest took, engine start included; absent when none was started. */
  milliseconds: z.number().optional(),
  testedAt: z.string(),
  /** What the answer holds for: this boot, user, device and emulator. */
  key: z.string(),
})

/** Whether KVM on a machine runs a 64-bit guest, and how that is known. */
export type KvmAnswer = z.infer<typeof answerSchema>

/**
 * Believes in KVM only after a tiny 64-bit guest has run to its end through it. The answer is kept until that host's
 * next boot, in the file `path`. `qemu` is the start of a QEMU command on that host.
 */
export async function kvmAnswer(
  machine: Machine,
  qemu: readonly string[],
  {
    refresh = false,
    signal,
    path = kvmProbePath(machine.name),
  }: { refresh?: boolean; signal?: AbortSignal; path?: string } = {},
): Promise<KvmAnswer> {
  const state = await look(machine, qemu, signal)
  const kept = refresh ? undefined : await readJson(path, answerSchema).catch(() => undefined)
  if (kept?.key === state.key) return kept
  const answer = { ...(await judge(machine, qemu, state, signal)), testedAt: new Date().toISOString(), key: state.key }
  await writeFileAtomic(path, JSON.stringify(answer, null, 2))
  return answer
}

interface State {
  device: 'absent' | 'denied' | 'open'
  /** Loaded modules whose name starts with kvm. */
  modules: string[]
  /** Of the processor's flags those that show a virtualization extension. */
  flags: string[]
  probe: Probe
  key: string
  /** How long it took to find all that out. */
  lookMs: number
}

/** In /proc/cpuinfo of arm64 alone. */
const arm64Line = 'CPU implementer'

const lookScript = `if [ ! -c /dev/kvm ]; then echo absent
elif [ -r /dev/kvm ] && [ -w /dev/kvm ]; then echo open
else echo denied; fi
read -r boot < /proc/sys/kernel/random/boot_id; echo "$boot"
echo $(stat -c '%u %g %a %t %T' /proc/self /dev/kvm 2> /dev/null)
(cd /sys/module 2> /dev/null && echo kvm*) || echo
echo $(grep -m 1 -ow -e vmx -e svm -e '${arm64Line}' /proc/cpuinfo)`

async function look(machine: Machine, qemu: readonly string[], signal?: AbortSignal): Promise<State> {
  const begun = performance.now()
  const { stdout } = await run(machine, ['sh', '-c', lookScript], { timeoutMs: 30_000, signal })
  const lookMs = performance.now() - begun
  const [device = '', boot = '', owners = '', modules = '', flags = ''] = stdout.split('\n')
  const key = createHash('sha256')
    .update([device, boot, owners, modules, flags, ...qemu].join('\n'))
    .digest('hex')
  return {
    device: device === 'open' || device === 'denied' ? device : 'absent',
    modules: modules.split(' ').filter((name) => name !== '' && name !== 'kvm*'),
    flags: flags === arm64Line ? [] : flags.split(' ').filter(Boolean),
    probe: probes[flags === arm64Line ? 'arm64' : 'x86_64'],
    key,
    lookMs,
  }
}

async function judge(
  machine: Machine,
  qemu: readonly string[],
  state: State,
  signal?: AbortSignal,
): Promise<Omit<KvmAnswer, 'key' | 'testedAt'>> {
  if (state.device === 'absent') return absent(state)
  if (state.device === 'denied') {
    return {
      usable: false,
      code: 'KVM_PERMISSION',
      reason: '/dev/kvm exists, but this user may not open it',
      hint: 'sudo usermod -aG kvm "$USER", then log in again',
    }
  }
  const paced = { ...state, workLimitMs: Math.min(Math.max(1000, 20 * (await paceMs(machine, signal))), longestWorkMs) }
  const start = performance.now()
  // The answer stays for long: what was only an unlucky moment of a busy machine is not to be it.
  const first = await runTinyGuest(machine, qemu, paced, signal)
  const outcome = first && (await runTinyGuest(machine, qemu, paced, signal))
  const milliseconds = Math.round(performance.now() - start)
  if (outcome === undefined) {
    const refused = state.probe.triesNesting ? await runTinyGuest(machine, qemu, paced, signal, true) : undefined
    const reason = 'a tiny 64-bit guest ran to its end through KVM'
    return { usable: true, code: 'KVM_OK', reason, milliseconds, ...(refused && { nestingRefused: refused }) }
  }
  const because = softwareNested(state) ? `; ${softwareNested(state)}` : ''
  return { usable: false, code: 'KVM_UNUSABLE', reason: `${outcome}${because}`, milliseconds }
}

function absent({ flags, probe }: State): Omit<KvmAnswer, 'key' | 'testedAt'> {
  const [extension = ''] = flags
  const known = Object.keys(probe.extensions).join(', ')
  const none = known
    ? `, and the processor shows no virtualization extension (${known})`
    : ': Linux has to start at EL2'
  return {
    usable: false,
    code: 'KVM_ABSENT',
    reason: `there is no /dev/kvm${extension ? `, although the processor shows ${extension}` : none}`,
    hint: extension ? `sudo modprobe ${probe.extensions[extension]}` : undefined,
  }
}

function softwareNested({ modules, flags, probe }: State): string | undefined {
  if (modules.includes('kvm_pvm')) return 'the module kvm_pvm is loaded: it runs only guests with a kernel made for it'
  if (flags.length === 0 && !probe.triesNesting)
    return 'the processor shows neither vmx nor svm, so this KVM does without the hardware'
  return undefined
}

/**
 * Until its first instruction what takes time is the start of QEMU. The machine may be an emulated one, where
 * everything takes thirty times as long: how long the few programs of `look` took tells.
 */
const startLimitMs = ({ lookMs }: State) => 3000 + 20 * lookMs

/**
 * From then on. A processor needs 10 ms, as it does for `paceScript`; an emulated one a hundred times as long for either.
 * kvm_pvm needs more than 20 s, where the script takes no longer than on any other host.
 */
const longestWorkMs = 10_000

/** Some ten million instructions of a shell: how fast the machine itself is. */
export const paceScript = 'i=0; while [ $i -lt 10000 ]; do i=$((i + 1)); done'

async function paceMs(machine: Machine, signal?: AbortSignal): Promise<number> {
  const begun = performance.now()
  await run(machine, ['sh', '-c', paceScript], { timeoutMs, signal })
  return performance.now() - begun
}

/** Written beside the name and renamed, as another command may be using it. Most of it is empty. */
const imageScript = `dir=\${XDG_STATE_HOME:-$HOME/.local/state}/nestvm
umask 077
mkdir -p "$dir" && gzip -dc > "$dir/kvm-probe.$$" && mv "$dir/kvm-probe.$$" "$dir/kvm-probe.img" || exit 1
printf %s "$dir/kvm-probe.img"`
const timeoutMs = 30_000

/** An ssh server may refuse to pass a signal on, as OpenSSH's does for root: the program must end without one. */
const boundedScript = `seconds=$1; shift
{ sleep $seconds; grep -qs kvm-probe /proc/$$/cmdline && kill -9 $$; } > /dev/null 2>&1 &
exec "$@"`

/** Undefined when it ran to its end, else what happened. */
async function runTinyGuest(
  machine: Machine,
  qemu: readonly string[],
  state: State & { workLimitMs: number },
  signal?: AbortSignal,
  nested = false,
): Promise<string | undefined> {
  const { probe } = state
  const { stdout: path } = await run(machine, ['sh', '-c', imageScript], {
    input: gzipSync(probe.image()),
    timeoutMs,
    signal,
  })
  const common = ['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot']
  const argv = [...qemu, ...common, '-run-with', 'exit-with-parent=on', ...probe.argv(path, nested)]
  let limitMs = startLimitMs(state)
  const seconds = String(Math.ceil((limitMs + longestWorkMs) / 1000))
  const child = await machine.spawn(['sh', '-c', boundedScript, 'sh', seconds, ...argv], { signal, noInput: true })
  let stdout = ''
  let stderr = ''
  let late = false
  const stop = () => {
    late = true
    child.kill('SIGKILL')
  }
  let timer = setTimeout(stop, limitMs)
  child.stdout.on('data', (chunk: Buffer) => {
    const first = !stdout.includes(stages.started)
    stdout += chunk
    if (!first || !stdout.includes(stages.started)) return
    clearTimeout(timer)
    limitMs = state.workLimitMs
    timer = setTimeout(stop, limitMs)
  })
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk
  })
  const exit = await child.exited.finally(() => clearTimeout(timer))
  signal?.throwIfAborted()
  if (late) return tooSlow(stdout, limitMs)
  if (probe.succeeded(stdout, exit.code, nested)) return undefined
  const words = stderr.trim().split('\n').at(-1) || 'without a word'
  return `QEMU with KVM ended with ${exit.code === null ? exit.signal : `status ${exit.code}`}: ${words}`
}

function tooSlow(stdout: string, limitMs: number): string {
  const limit = `within ${Number((limitMs / 1000).toFixed(1))} s`
  if (!stdout.includes(stages.started)) return `a tiny guest started through KVM executed nothing ${limit}`
  if (!stdout.includes(stages.longMode)) return `a tiny guest started through KVM did not reach 64-bit mode ${limit}`
  return `a tiny guest reached 64-bit mode through KVM, but 40 million instructions did not end ${limit}: a processor needs 10 ms`
}
