import type { Finding } from '../host/checks/finding.ts'
import { runsUnder } from '../host/checks/hypervisor.ts'
import type { Judgement } from '../host/checks/judge.ts'
import type { Facts } from '../host/facts/schema.ts'

interface Style {
  color: boolean
  /** Lines are not longer than so many columns, but for commands, which are to be copied. */
  width: number
}

const marks: Record<Finding['severity'], { sign: string; color: string }> = {
  problem: { sign: '✗', color: '31' },
  warning: { sign: '!', color: '33' },
  note: { sign: '·', color: '36' },
  good: { sign: '✓', color: '32' },
}

/** What doctor prints for people: the machines, what was found on each, and the verdict. */
export function doctorText(chain: readonly Facts[], judgement: Judgement, style: Style): string {
  const paint = (text: string, color: string) => (style.color ? `\x1b[${color}m${text}\x1b[0m` : text)
  const machines = judgement.machines.map(({ findings }, index) => {
    const facts = chain[index]
    const title = facts ? `${paint(`L${facts.level}  ${plain(facts.machine)}`, '1')}  ${plain(describe(facts))}` : ''
    return [title, ...findings.map((finding) => findingText(finding, style, paint))].join('\n')
  })
  const verdict = paint(
    verdictText(judgement, chain.at(-1)?.windows ? 'on Hyper-V, then KVM' : 'on KVM at every level'),
    { kvm: '1;32', emulated: '1;33', no: '1;31' }[judgement.reach],
  )
  return [...machines, verdict].join('\n\n')
}

function describe(facts: Facts): string {
  if (facts.windows) return `Windows build ${facts.windows.build}, a Hyper-V host, and its VM ${facts.windows.vm.name}`
  const { arch, kernel, cpu, memory } = facts
  const under = runsUnder(facts)
  return [
    `${arch}, Linux ${kernel.release}`,
    ...(cpu.model ? [cpu.model] : []),
    `${cpu.count} CPU${cpu.count === 1 ? '' : 's'}, ${memory.availableMiB} of ${memory.totalMiB} MiB free`,
    under ? `under ${under.name}` : 'bare metal',
    ...(facts.container ? [`seen from a ${facts.container} container`] : []),
  ].join('; ')
}

type Paint = (text: string, color: string) => string

function findingText({ id, severity, seen, means, mend, sure }: Finding, { width }: Style, paint: Paint): string {
  const { sign, color } = marks[severity]
  const label = `[${id}${sure === 'certain' ? '' : `, ${sure}`}]`
  const head = (text: string) => indent(wrap(`${text} ${label}`, width - 4), `  ${paint(sign, color)} `, '    ')
  if (severity === 'good') return head(`${seen}: ${means}`).join('\n')
  const lines = [...head(seen), ...indent(wrap(means, width - 6), '      ')]
  const { now = [], lasting = [], advice, shell } = mend ?? {}
  const prompt = shell === 'powershell' ? '        PS> ' : '        $ '
  return [
    ...lines,
    ...(now.length > 0 ? ['      until the next reboot:', ...indent(now, prompt)] : []),
    ...(lasting.length > 0 ? ['      to stay:', ...indent(lasting, prompt)] : []),
    ...(advice ? indent(wrap(advice, width - 9), '      -> ', '         ') : []),
  ].join('\n')
}

function verdictText({ depth, reach, because }: Judgement, how: string): string {
  const levels = depth === 1 ? 'A guest' : `${depth} levels of guests`
  const reasons = because.join(', ')
  if (reach === 'kvm') return `${levels}: ${depth === 1 ? 'on KVM' : how}.`
  if (reach === 'no') return `${levels}: not here, because of ${reasons}.`
  const deeper = depth === 1 ? '' : '; deeper levels run on KVM in it'
  return `${levels}: the outermost is emulated, because of ${reasons}${deeper}.`
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  for (const word of plain(text).split(' ')) {
    const line = lines.at(-1)
    if (line === undefined || line.length + 1 + word.length > width) lines.push(word)
    else lines[lines.length - 1] = `${line} ${word}`
  }
  return lines
}

function indent(lines: readonly string[], first: string, rest = first): string[] {
  return lines.map((line, index) => `${index === 0 ? first : rest}${plain(line)}`)
}

/** What a guest or a file says must not steer the terminal. */
function plain(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, '?')
}
