import { relative } from 'node:path'
import { Command } from 'commander'
import type { Report } from '../report/report.ts'
import { printJson, type Session, session } from './session.ts'
import { parseDuration } from './values.ts'

interface ReportOptions {
  output?: string
  timeout?: number
  json?: boolean
}

export function reportCommand(): Command {
  return new Command('report')
    .description('Gather what a bug report needs from every level, redacted, in one archive.')
    .argument(
      '[machine...]',
      'a path, host, or ssh://[user@]host[:port]; with all levels around and in it (default: all)',
    )
    .option('-o, --output <file>', 'the .tar.gz to write (default: a name with the time, here)')
    .option('--timeout <duration>', 'how long a level may take to answer (default: by its level)', parseDuration)
    .option('--json', 'print JSON')
    .action((machines: string[], options: ReportOptions) =>
      session(options.json === true, (own) => makeReport(own, machines, options)),
    )
}

async function makeReport(own: Session, machines: string[], { output, timeout, json }: ReportOptions): Promise<number> {
  const { createReport } = await import('../report/report.ts')
  const { presentBundle } = await import('./bundle.ts')
  const { showStep } = await import('./progress.ts')
  const report = await createReport(own.context, {
    ...{ machines, output, limitMs: timeout, bundle: presentBundle },
    onLevels: (levels) => showStep(`asking ${levels.length} machine${levels.length === 1 ? '' : 's'}`),
  }).finally(() => showStep(''))
  if (json) printJson(report)
  else show(report)
  return 0
}

function show({ file, bytes, levels, redactions, proofs }: Report): void {
  console.log(`${relative('', file)}  ${Math.ceil(bytes / 1024)} KiB`)
  for (const { level, machine, files, absent, problem } of levels) {
    const proof = proofs.find((one) => one.machine === machine)
    const how = proof ? `  ${proof.kvmOnKvm ? 'KVM on KVM' : proof.on === 'kvm' ? 'on KVM' : 'emulated'}` : ''
    console.log(`L${level}  ${machine}${how}${problem ? `  did not answer: ${problem}` : ''}`)
    console.log(`    ${files.map(({ file }) => file).join(', ')}`)
    for (const { file, why } of absent) console.log(`    without ${file}: ${why}`)
  }
  const counted = Object.entries(redactions).filter(([, { places }]) => places > 0)
  const words = counted.map(
    ([kind, { values, places }]) => `${kind} ${values} (in ${places} place${places === 1 ? '' : 's'})`,
  )
  console.log(`redacted: ${words.join(', ') || 'nothing'}`)
  console.log(
    'Its first page is summary.md. Look at it all before you send it: what does not look private is as it was.',
  )
}
