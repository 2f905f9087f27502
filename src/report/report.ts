import { arch, release } from 'node:os'
import { dirname, resolve } from 'node:path'
import type { Bundle } from '../bundle/bundle.ts'
import { checkAlone } from '../host/checks/judge.ts'
import { factsSchema } from '../host/facts/schema.ts'
import type { Context } from '../stack/context.ts'
import { type GuestRecord, recordSchema } from '../stack/record.ts'
import { version } from '../store/version.ts'
import { removeLeftovers, writeFileAtomic } from '../store/write.ts'
import { archive } from './archive.ts'
import type { Gathered } from './gather.ts'
import { type Level, levelsOf } from './level.ts'
import { type Proof, proofs } from './nesting.ts'
import { type Redactions, Redactor } from './redact.ts'
import { summary } from './summary.ts'
import { type Visit, visit } from './visit.ts'

export interface ReportRequest {
  /** Paths of guests, `host`, or `ssh://` addresses; none for all of this user's. */
  machines: readonly string[]
  /** Where it goes; a name with the time in the working directory unless said. */
  output?: string
  /** How long a level may take to answer; by its level unless said. */
  limitMs?: number
  bundle: () => Promise<Bundle>
  onLevels?: (levels: readonly Level[]) => void
}

export interface Report {
  file: string
  bytes: number
  madeAt: string
  nestvm: string
  levels: ReportedLevel[]
  proofs: Proof[]
  redactions: Redactions
}

export interface ReportedLevel {
  level: number
  machine: string
  /** In the archive. */
  directory: string
  /** Why the machine told nothing; absent where it did. */
  problem?: string
  files: { file: string; bytes: number; note?: string }[]
  /** What it does not have, and why. */
  absent: { file: string; why: string }[]
}

/**
 * Asks all levels at once, redacts what they tell, and writes one .tar.gz, which is there whole or not at all. Throws
 * `NO_SUCH_MACHINE`, `NO_SPACE`, and the signal's reason.
 */
export async function createReport(context: Context, request: ReportRequest): Promise<Report> {
  const levels = await levelsOf(request.machines)
  request.onLevels?.(levels)
  const raw = await Promise.all(levels.map((level) => visit(context, level, request)))
  const made = new Date()
  const name = `nestvm-report-${made.toISOString().slice(0, 19).replaceAll(/[-:]/g, '').replace('T', '-')}`

  const redactor = redactorFor(raw)
  const told = raw.map((one) => redacted(one, redactor))
  const files = new Map<string, string>()
  const reported = told.map((one) => {
    const directory = directoryOf(one, told)
    const present = [...one.files.filter(({ text }) => text !== ''), ...ownFiles(one)]
    for (const { file, text } of present) files.set(`${directory}/${file}`, text)
    return {
      ...{ level: one.level, machine: one.machine, directory, problem: one.problem },
      files: present.map(({ file, text, why }) => ({ file, bytes: Buffer.byteLength(text), note: why })),
      absent: one.files.filter(({ text }) => text === '').map(({ file, why = '' }) => ({ file, why })),
    }
  })
  files.set('nestvm.json', json(redactor.json(thisNestvm())))
  const facts = { madeAt: made.toISOString(), nestvm: version, levels: reported, proofs: proofs(told) }
  const report = { ...facts, redactions: redactor.counts() }
  const whole = new Map([['summary.md', summary(report, told)], ['report.json', json(report)], ...files])
  const file = resolve(request.output ?? `${name}.tar.gz`)
  const data = archive(name, whole, made)
  context.signal.throwIfAborted()
  await removeLeftovers(dirname(file))
  await writeFileAtomic(file, data)
  return { ...report, file, bytes: data.length }
}

/** Knows the names of all levels, and all that any of their texts tells to be private. */
function redactorFor(visits: readonly Visit[]): Redactor {
  const redactor = new Redactor()
  for (const { identity, record, files, facts, machine } of visits) {
    for (const line of identity.split('\n')) {
      const [, kind, name = ''] = /^(host|user) (.+)$/.exec(line) ?? []
      // A guest is called by its path.
      if ((kind !== 'host' && kind !== 'user') || name === machine.replaceAll('/', '-')) continue
      redactor.know(kind, name)
      if (kind === 'host') redactor.know(kind, name.split('.')[0] ?? '')
    }
    const registry = record?.container?.reference.split('/')[0] ?? ''
    if (registry.includes('.') && !publicRegistries.includes(registry)) redactor.know('host', registry)
    redactor.learn([machine, record, facts, files.map(({ text }) => text)])
  }
  for (const [name, value] of Object.entries(process.env)) redactor.learn(`${name}="${value}"`)
  return redactor
}

const publicRegistries = ['docker.io', 'quay.io', 'ghcr.io', 'gcr.io', 'registry.k8s.io', 'mcr.microsoft.com']

function redacted(visit: Visit, redactor: Redactor): Visit {
  const { level, machine, record, facts, files, problem, counters, signature } = visit
  const optional = (text: string | undefined) => text && redactor.text(text)
  return {
    ...{ level, machine: redactor.text(machine), problem: optional(problem), counters, signature: optional(signature) },
    record: record && recordSchema.parse(redactor.json(withoutKeys(record))),
    facts: facts && factsSchema.parse(redactor.json(facts)),
    files: files.map(({ file, text, why }) => ({ file, text: redactor.text(text), why: optional(why) })),
    identity: '',
  }
}

/** Its keys, and its image's lists of users, are nobody's business. */
function withoutKeys(record: GuestRecord): GuestRecord {
  const { container } = record
  return { ...record, hostKey: '', container: container && { ...container, passwd: '', group: '' } }
}

/** What nestvm knows of a level, and makes of it. */
function ownFiles({ record, facts }: Visit): Gathered[] {
  const { cpuid = {} } = facts?.cpu ?? {}
  return [
    ...(Object.keys(cpuid).length > 0 ? [{ file: 'cpuid.txt', text: cpuidText(cpuid) }] : []),
    ...(facts ? [{ file: 'facts.json', text: json(facts) }] : []),
    ...(facts ? [{ file: 'findings.json', text: json(checkAlone(facts)) }] : []),
    ...(record ? [{ file: 'nestvm/record.json', text: json(record) }] : []),
  ]
}

/** As the tool cpuid writes it with `-1 -r`; for where there is neither it nor x86info. */
function cpuidText(leaves: Record<string, string>): string {
  return Object.entries(leaves)
    .map(([name, registers]) => {
      const [leaf = '', subleaf = ''] = name.split(':')
      const [eax, ebx, ecx, edx] = registers.split(' ')
      return `   0x${leaf.padStart(8, '0')} 0x${subleaf.padStart(2, '0')}: eax=0x${eax} ebx=0x${ebx} ecx=0x${ecx} edx=0x${edx}\n`
    })
    .join('')
}

/** `L0`, `L1-outer`, `L2-outer.inner`; hosts but the first by number. */
function directoryOf(visit: Visit, all: readonly Visit[]): string {
  if (visit.record) return `L${visit.level}-${visit.machine.replaceAll('/', '.').replaceAll(/[<>]/g, '')}`
  const index = all.filter(({ record }) => !record).indexOf(visit)
  return index === 0 ? 'L0' : `L0-${index + 1}`
}

/** Variables that change what nestvm and its programs do. */
function thisNestvm() {
  const names = Object.keys(process.env).filter((name) => /^(NESTVM_|XDG_|QEMU_|LC_|LANG$|.*_proxy$)/i.test(name))
  return {
    ...{ version, node: process.version, kernel: release(), arch: arch() },
    environment: Object.fromEntries(names.sort().map((name) => [name, process.env[name]])),
  }
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`
}
