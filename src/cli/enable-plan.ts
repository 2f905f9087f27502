import { stepDiff } from '../enable/diff.ts'
import type { Effect, Plan, Step } from '../enable/plan.ts'
import { quote } from '../machine/quote.ts'

/** A plan for people. What is to be run elsewhere goes to stdout alone, so that it can be kept in a file. */
export function showPlan(plan: Pick<Plan, 'summary' | 'steps' | 'notes'> & Partial<Plan> & { title?: string }): void {
  const print = plan.output === undefined ? console.log : console.error
  print(`${plan.title ?? plan.platform}: ${plan.summary}`)
  for (const step of plan.steps) print(describe(step))
  if (plan.effect !== undefined && plan.steps.length > 0 && effects[plan.effect]) print(`  ${effects[plan.effect]}`)
  for (const note of plan.notes) print(`  note: ${note}`)
  if (plan.output !== undefined) process.stdout.write(plan.output)
}

export function stepsForJson(steps: readonly Step[]): unknown[] {
  return steps.map((step) =>
    step.kind === 'file'
      ? { kind: step.kind, path: step.path, diff: stepDiff(step), why: step.why }
      : { kind: step.kind, argv: step.argv, why: step.why },
  )
}

const effects: Record<Effect, string> = {
  already: '',
  now: 'it counts at once',
  reload: 'it counts when the module is loaded next',
  reboot: 'it counts from the next start of the machine',
  login: 'it counts from the next login',
  elsewhere: '',
}

function describe(step: Step): string {
  if (step.kind === 'command') return `  run ${step.argv.map(quote).join(' ')}: ${step.why}`
  const what = step.after === undefined ? 'remove' : 'write'
  const lines = stepDiff(step).trimEnd().split('\n')
  return [`  ${what} ${step.path}: ${step.why}`, ...lines.map((line) => `    ${line}`)].join('\n')
}
