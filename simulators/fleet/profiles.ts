import type { JsonObject } from '../../processor/contract/json.ts'
import type { Random } from '../random.ts'

/** The world that a device measures. `step` moves it on by `seconds` and reads it; only the random decides. */
export interface Model {
  step(seconds: number): JsonObject
}

export interface Profile {
  readonly name: string
  /** Readings in one payload. */
  readonly samples: number
  create(random: Random): Model
}

const DAY_SECONDS = 86_400
const METRES_PER_DEGREE = 111_320

/** A room that loses heat to a day of weather and is heated to a set point, lower at night. */
const thermostat: Profile = {
  name: 'thermostat',
  samples: 1,
  create(random) {
    let clock = random() * DAY_SECONDS
    const comfort = 20 + Math.round(random() * 6) / 2
    const coldest = -2 + random() * 10
    let inside = comfort - 2 + random() * 3
    let humidity = 35 + random() * 20
    let battery = 60 + random() * 40
    let heating = false
    return {
      step(seconds) {
        clock = (clock + seconds) % DAY_SECONDS
        const outside = coldest + 8 * (0.5 - 0.5 * Math.cos(((clock - 4 * 3600) / DAY_SECONDS) * 2 * Math.PI))
        const setPoint = clock > 6 * 3600 && clock < 22 * 3600 ? comfort : comfort - 3
        if (inside < setPoint - 0.3) heating = true
        if (inside > setPoint + 0.3) heating = false
        inside += (seconds / 3600) * ((heating ? 6 : 0) - 0.12 * (inside - outside))
        humidity += towards(humidity, 45, seconds / 7200) + (random() - 0.5) * 0.2
        battery = Math.max(0, battery - (seconds / DAY_SECONDS) * 0.3)
        return {
          temperature: round(inside + (random() - 0.5) * 0.1, 2),
          setPoint,
          heating,
          humidity: round(humidity, 1),
          battery: round(battery, 2),
        }
      },
    }
  },
}

/** A vehicle that keeps to its speed and turns a little, somewhere around one city. */
const vehicle: Profile = {
  name: 'vehicle',
  samples: 1,
  create(random) {
    let latitude = 52.09 + (random() - 0.5) * 0.2
    let longitude = 5.12 + (random() - 0.5) * 0.3
    let heading = random() * 360
    let metresPerSecond = random() * 15
    let odometer = 5_000 + random() * 200_000
    let battery = 30 + random() * 70
    return {
      step(seconds) {
        metresPerSecond += towards(metresPerSecond, 13, seconds / 60) + (random() - 0.5) * Math.sqrt(seconds) * 1.5
        metresPerSecond = Math.min(Math.max(metresPerSecond, 0), 36)
        heading = (heading + (random() - 0.5) * 20 + 360) % 360
        const metres = metresPerSecond * seconds
        const north = metres * Math.cos((heading / 180) * Math.PI)
        const east = metres * Math.sin((heading / 180) * Math.PI)
        latitude += north / METRES_PER_DEGREE
        longitude += east / (METRES_PER_DEGREE * Math.cos((latitude / 180) * Math.PI))
        odometer += metres / 1000
        battery -= (metres / 1000) * 0.2
        if (battery < 5) battery = 100
        return {
          pos: { lat: round(latitude, 6), lon: round(longitude, 6) },
          speed: round(metresPerSecond * 3.6, 1),
          heading: Math.round(heading) % 360,
          odometer: round(odometer, 2),
          battery: round(battery, 1),
        }
      },
    }
  },
}

/** A household's electricity meter: a base load, a morning and an evening peak, and an energy count that only grows. */
const meter: Profile = {
  name: 'meter',
  samples: 1,
  create(random) {
    let clock = random() * DAY_SECONDS
    const base = 150 + random() * 250
    const peak = 800 + random() * 2_000
    let energy = 1_000 + random() * 20_000
    return {
      step(seconds) {
        clock = (clock + seconds) % DAY_SECONDS
        const hour = clock / 3600
        const demand = Math.exp(-((hour - 7.5) ** 2) / 2) + Math.exp(-((hour - 19) ** 2) / 4.5)
        const watts = (base + peak * demand) * (0.9 + random() * 0.2)
        energy += (watts * seconds) / 3_600_000
        return { power: Math.round(watts), energy: round(energy, 4), voltage: round(230 + (random() - 0.5) * 6, 1) }
      },
    }
  },
}

/** A sensor on the bearing of a machine: it samples fast, sends its samples by the dozen, and the bearing wears. */
const vibration: Profile = {
  name: 'vibration',
  samples: 12,
  create(random) {
    const hertz = 24 + random() * 26
    let wear = random() * 0.2
    let load = 0.6 + random() * 0.3
    let temperature = 35 + random() * 10
    return {
      step(seconds) {
        load = Math.min(1, Math.max(0.2, load + towards(load, 0.75, seconds / 600) + (random() - 0.5) * 0.02))
        wear += seconds * load * 1e-6
        const rms = load * (1.2 + 3 * wear) * (0.95 + random() * 0.1)
        temperature += towards(temperature, 30 + 25 * load + 20 * wear, seconds / 900)
        return {
          rms: round(rms, 3),
          peak: round(rms * (2.6 + 4 * wear + random() * 0.5), 3),
          bands: [rms * 0.7, rms * 0.25 * (1 + wear), rms * 0.1 * (1 + 5 * wear)].map((band) => round(band, 3)),
          rotation: round(hertz * (0.995 + random() * 0.01), 2),
          temperature: round(temperature, 1),
        }
      },
    }
  },
}

/** Device n of a fleet has profile n modulo their number. */
export const PROFILES: readonly Profile[] = [thermostat, vehicle, thermostat, meter, vibration]

/** How far `value` moves towards `target` in `share` time constants. */
function towards(value: number, target: number, share: number): number {
  return (target - value) * Math.min(1, share)
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
