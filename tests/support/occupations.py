"""Occupations in English, Russian and German, of which generated postings and résumés are made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Occupation:
    """One occupation: its titles, skills, what is done, and what is asked for."""

    titles: tuple[str, ...]
    skills: tuple[str, ...]
    tasks: tuple[str, ...]
    requirement: str


def _occupation(titles: str, skills: str, tasks: str, requirement: str) -> Occupation:
    return Occupation(tuple(titles.split("; ")), tuple(skills.split("; ")), tuple(tasks.split("; ")), requirement)


ENGLISH = (
    _occupation(
        "Data Scientist; Machine Learning Engineer; Senior Data Scientist",
        "Python; SQL; machine learning; pandas; statistics; scikit-learn",
        "Build models that predict customer churn; Design experiments and explain their results; "
        "Clean large tables of events and join them; Put models into production with the platform team",
        "Three years of work with Python and statistics",
    ),
    _occupation(
        "Registered Nurse; Intensive Care Nurse; Staff Nurse",
        "patient care; wound care; triage; medication administration; vital signs; electronic health records",
        "Care for patients after surgery; Give medication as prescribed and document it; "
        "Hand over the ward to the next shift; Comfort patients and their families",
        "A nursing licence and two years on a ward",
    ),
    _occupation(
        "Backend Developer; Java Developer; Senior Software Engineer",
        "Java; Spring Boot; PostgreSQL; Kafka; Docker; REST APIs",
        "Develop services that handle payments; Review the code of colleagues; "
        "Make slow queries fast; Take part in the on-call rota",
        "Experience with distributed systems",
    ),
    _occupation(
        "Pastry Chef; Line Cook; Sous Chef",
        "menu planning; baking; food safety; knife skills; inventory; plating",
        "Prepare desserts for two hundred guests; Order ingredients and check their quality; "
        "Keep the kitchen to the rules of hygiene; Train new cooks",
        "A completed training as a cook",
    ),
    _occupation(
        "Truck Driver; Delivery Driver; Long Haul Driver",
        "CDL class A; route planning; vehicle inspection; load securing; forklift",
        "Drive refrigerated goods across three states; Secure loads and inspect the vehicle; "
        "Keep the log of hours; Talk to customers at delivery",
        "A clean driving record",
    ),
    _occupation(
        "Accountant; Senior Accountant; Payroll Accountant",
        "bookkeeping; Excel; IFRS; tax returns; SAP; month-end closing",
        "Close the books each month; Prepare tax returns; Answer the auditors' questions; Reconcile bank accounts",
        "A degree in accounting",
    ),
    _occupation(
        "Makeup Artist; Beauty Stylist; Face Painter",
        "makeup; face painting; skin care; bridal styling; hygiene; airbrush",
        "Do the makeup of actors before the show; Paint faces at children's parties; "
        "Advise customers on skin care; Keep brushes clean",
        "A portfolio of your work",
    ),
    _occupation(
        "Electrician; Maintenance Electrician; Industrial Electrician",
        "wiring; circuit testing; motor control; PLC; blueprints; safety standards",
        "Install wiring in new buildings; Find and repair faults in machines; "
        "Read drawings and measure circuits; Keep records of inspections",
        "A journeyman licence",
    ),
)  # fmt: skip

RUSSIAN = (
    _occupation(
        "Аналитик данных; Специалист по машинному обучению; Data Scientist",
        "Python; SQL; машинное обучение; статистика; pandas; визуализация данных",
        "Строить модели оттока клиентов; Проводить эксперименты и объяснять результаты; "
        "Готовить витрины данных; Внедрять модели вместе с разработчиками",
        "Опыт работы с Python от двух лет",
    ),
    _occupation(
        "Медицинская сестра; Процедурная медсестра; Старшая медсестра",
        "уход за пациентами; инъекции; перевязки; медицинская документация; внимательность",
        "Ухаживать за пациентами после операций; Выполнять назначения врача; "
        "Вести документацию; Готовить кабинет к приёму",
        "Сертификат по сестринскому делу",
    ),
    _occupation(
        "Визажист; Мастер по аквагриму; Стилист-визажист",
        "макияж; аквагрим; уход за кожей; свадебный образ; работа с детьми",
        "Делать макияж клиентам салона; Рисовать аквагрим на детских праздниках; "
        "Советовать средства ухода; Следить за чистотой кистей",
        "Портфолио работ",
    ),
    _occupation(
        "Специалист по взысканию задолженности; Менеджер по работе с должниками; Оператор контакт-центра",
        "переговоры; телефонные звонки; CRM; работа с возражениями; стрессоустойчивость",
        "Звонить клиентам с просроченной задолженностью; Договариваться о сроках оплаты; "
        "Вести учёт обращений; Готовить отчёты",
        "Грамотная речь",
    ),
    _occupation(
        "Повар; Повар-кондитер; Су-шеф",
        "приготовление блюд; выпечка; технологические карты; санитарные нормы; заготовки",
        "Готовить блюда по меню; Печь торты на заказ; Принимать продукты; Соблюдать санитарные нормы",
        "Медицинская книжка",
    ),
    _occupation(
        "Водитель-экспедитор; Водитель категории C; Водитель грузового автомобиля",
        "категория C; доставка грузов; путевые листы; ремонт автомобиля; знание города",
        "Доставлять товар в магазины; Следить за состоянием машины; Оформлять документы; Помогать при разгрузке",
        "Стаж вождения от трёх лет",
    ),
)  # fmt: skip

GERMAN = (
    _occupation(
        "Softwareentwickler; Java-Entwicklerin; Backend-Entwickler",
        "Java; Spring; PostgreSQL; Docker; Testautomatisierung",
        "Entwicklung von Diensten für den Zahlungsverkehr; Pflege der Datenbanken; Prüfung des Codes von Kollegen",
        "Abgeschlossenes Studium der Informatik",
    ),
    _occupation(
        "Krankenpfleger; Gesundheits- und Krankenpflegerin; Stationsleiterin",
        "Grundpflege; Wundversorgung; Medikamentengabe; Pflegedokumentation",
        "Pflege von Patienten nach Operationen; Vorbereitung der Visite; Anleitung von Auszubildenden",
        "Abgeschlossene Ausbildung in der Pflege",
    ),
    _occupation(
        "Elektroniker; Industrieelektriker; Elektroinstallateur",
        "Schaltpläne; SPS-Programmierung; Messtechnik; Installation",
        "Montage von Schaltschränken; Suche von Fehlern an Anlagen; Prüfung nach Vorschrift",
        "Abgeschlossene Lehre als Elektroniker",
    ),
)  # fmt: skip
