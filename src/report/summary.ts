import { checkAlone } from '../host/checks/judge.ts'
import { levelItems } from './items.ts'
import { nestingText } from './nesting.ts'
import type { Report } from './report.ts'
import type { Visit } from './visit.ts'

/** The first page of a report, in Markdown, from what is redacted already. */
export function summary(report: Omit<Report, 'file' | 'bytes'>, visits: readonly Visit[]): string {
  const { madeAt, nestvm, levels, redactions } = report
  const silent = levels.filter(({ problem }) => problem)
  const parts = [
    '# Report on nested virtualization',
    `Made at ${madeAt} by nestvm ${nestvm}.`,
    '## Nesting',
    list(nestingText(visits)),
    ...(silent.length > 0
      ? ['## Did not answer', list(silent.map(({ level, machine, problem }) => `L${level} (${machine}): ${problem}`))]
      : []),
    '## Levels',
    table(
      ['level', 'machine', 'accelerator', 'why', 'CPUs', 'MiB', 'kernel', 'QEMU that it runs'],
      visits.map(levelRow),
    ),
    '## What doctor finds',
    list(visits.flatMap(findings)),
    "## What is here, by the list of the kernel's document and beyond",
    table(['', ...levels.map(({ level, machine }) => `L${level} ${machine}`)], presence(levels)),
    ...(notes(levels).length > 0
      ? ['Where a file is missing, or something else is in its stead:', list(notes(levels))]
      : []),
    '## Redacted',
    `The same name stands for the same value throughout. Names of machines of nestvm, of images and of files are as they were, and so is what guests and users wrote to logs where nothing shows that it is private.`,
    table(
      ['kind', 'values', 'places'],
      Object.entries(redactions).map(([kind, { values, places }]) => [kind, String(values), String(places)]),
    ),
  ]
  return `${parts.join('\n\n')}\n`
}

function levelRow({ level, machine, record, facts, files }: Visit): string[] {
  const versions = files.find(({ file }) => file === 'qemu.txt')?.text.matchAll(/version (\d+\.\d+\.\d+)/g) ?? []
  const qemus = [...new Set([...versions].map(([, version = '']) => version))]
  return [
    ...[`L${level}`, machine, record?.accel ?? '', record?.accelReason ?? ''],
    ...[String(record?.cpus ?? facts?.cpu.count ?? ''), String(record?.memoryMiB ?? facts?.memory.totalMiB ?? '')],
    ...[facts?.kernel.release ?? '', qemus.join(', ')],
  ]
}

/** Of machines that are to run guests; of others it is of no interest that they cannot. */
function findings({ level, machine, record, facts }: Visit): string[] {
  if (!facts || (record && !record.nested)) return []
  const found = checkAlone(facts).filter(({ severity }) => severity !== 'good')
  return found.map(({ severity, id, seen, means }) => `L${level} (${machine}), ${severity} ${id}: ${seen}; ${means}`)
}

function presence(levels: Report['levels']): string[][] {
  const files = [
    ...new Set([
      ...levelItems.map(({ file }) => file),
      ...levels.flatMap((level) => level.files.map(({ file }) => file)),
    ]),
  ]
  return files.map((file) => [
    file,
    ...levels.map(({ files, absent }) => {
      const there = files.find((one) => one.file === file)
      if (there) return there.note ? 'instead' : 'yes'
      return absent.some((one) => one.file === file) ? 'no' : ''
    }),
  ])
}

function notes(levels: Report['levels']): string[] {
  return levels.flatMap(({ level, machine, files, absent }) => [
    ...absent.map(({ file, why }) => `L${level} (${machine}), ${file}: ${why}`),
    ...files.flatMap(({ file, note }) => (note ? [`L${level} (${machine}), ${file}: ${note}`] : [])),
  ])
}

/** What a machine says does not make headings or tags. */
function plain(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, ' ').replaceAll(/[\\`*_[\]<>|#]/g, '\\$&')
}

function list(lines: readonly string[]): string {
  return lines.length > 0 ? lines.map((line) => `- ${plain(line)}`).join('\n') : 'Nothing.'
}

function table(head: readonly string[], rows: readonly string[][]): string {
  const line = (cells: readonly string[]) => `| ${cells.map(plain).join(' | ')} |`
  return [line(head), `|${head.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n')
}
